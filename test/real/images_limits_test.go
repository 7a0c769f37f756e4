package real_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// span is what a registry saw of the pull of one repository.
type span struct {
	repository string
	begin, end time.Time
}

// spans are those of the repositories in a folder, in the order of their
// beginnings.
func spans(front *rig.Front, folder string) []span {
	var found []span
	for _, request := range front.Requests(folder) {
		at := slices.IndexFunc(found, func(s span) bool { return s.repository == request.Repository })
		if at < 0 {
			found = append(found, span{request.Repository, request.Begin, request.End})
		} else if request.End.After(found[at].end) {
			found[at].end = request.End
		}
	}
	return found
}

// together is how many of them went on at one time, at most.
func together(found []span) int {
	type change struct {
		at    time.Time
		count int
	}
	var changes []change
	for _, s := range found {
		changes = append(changes, change{s.begin, 1}, change{s.end, -1})
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.count, b.count)) })
	most, now := 0, 0
	for _, c := range changes {
		now += c.count
		most = max(most, now)
	}
	return most
}

// testLimits: a hundred pulls of twenty images, of which three may go on at one
// time. A handler without a limit shows that the measure can tell.
func testLimits(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	const references, callers, limit = 20, 100, 3
	proxy := s.proxy(ctx, t, "limits", map[string]string{"runc": fmt.Sprintf("max_parallel_pulls = %d", limit)})
	k := kubelet(t, s.node, proxy.Endpoint())
	for _, c := range []struct {
		handler string
		limit   int
	}{{"runc", limit}, {second, 0}} {
		pod := sandbox(ctx, t, k, c.handler)
		names := make([]string, references)
		for n := range names {
			names[n] = fmt.Sprintf("lasting/%s/%02d", c.handler, n)
			push(ctx, t, s, "faulty.test/"+names[n]+":v1", rig.Image{})
		}
		begin := time.Now()
		pullMany(ctx, t, s, proxy, k, pod, names, callers)
		seen := spans(s.faulty, "lasting/"+c.handler)
		most := together(seen)
		t.Logf("handler %s, limit %d: %d callers, %d pulls upstream, at most %d together, in %s",
			c.handler, c.limit, callers, len(seen), most, time.Since(begin).Round(time.Millisecond))
		if len(seen) != references {
			t.Errorf("%d repositories were pulled, want %d", len(seen), references)
		}
		if c.limit == 0 {
			if most <= limit {
				t.Errorf("without a limit only %d pulls went on together: nothing is measured", most)
			}
			continue
		}
		if most > limit {
			t.Errorf("%d pulls went on together, want at most %d", most, limit)
		}
		wantOnce(t, s.faulty, names)
		wantOrder(t, names, seen, limit)
	}
}

// pullMany pulls each of the names as often as the callers allow. The pulls
// arrive one after another: while the registry answers nobody, each is sent when
// the proxy has the one before.
func pullMany(
	ctx context.Context, t *testing.T, s *stores, proxy *rig.Proxy, k *rig.Kubelet, pod *rig.KubeletPod, names []string, callers int,
) {
	t.Helper()
	release := s.faulty.Hold("lasting/" + pod.Handler)
	defer release()
	ended := make(chan error, callers)
	for n := range callers {
		// All of the first round arrive before the second: the order is that of the names.
		name := "faulty.test/" + names[n%len(names)] + ":v1"
		go func() {
			_, err := k.Images.PullImage(ctx, pullRequest(pod, name))
			ended <- err
		}()
		waitFor(ctx, t, func() error { return inFlight(ctx, proxy, n+1) })
	}
	release()
	for range callers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func pullRequest(pod *rig.KubeletPod, image string) *runtimeapi.PullImageRequest {
	return &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: image, Annotations: pod.Config.GetAnnotations()}, SandboxConfig: pod.Config,
	}
}

// inFlight says that the proxy has not yet so many pulls.
func inFlight(ctx context.Context, proxy *rig.Proxy, wanted int) error {
	metrics, err := proxy.AdminGet(ctx, "/metrics")
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`cri_proxy_requests_in_flight{method="PullImage"} (\d+)`).FindSubmatch(metrics)
	if found == nil {
		return fmt.Errorf("no pull is counted, want %d", wanted)
	}
	count, err := strconv.Atoi(string(found[1]))
	if err == nil && count < wanted {
		err = fmt.Errorf("%d pulls are counted, want %d", count, wanted)
	}
	return err
}

// wantOnce: equal pulls share one, so each layer is fetched at most once.
func wantOnce(t *testing.T, front *rig.Front, names []string) {
	t.Helper()
	for _, name := range names {
		heads := 0
		for _, request := range front.Requests(name) {
			if request.Kind == "manifests" && request.Method == http.MethodHead {
				heads++
			}
		}
		if heads != 1 {
			t.Errorf("%s was resolved %d times, want once for all its callers", name, heads)
		}
	}
}

// wantOrder: the registry saw them in the order of their arrival, but for those
// that went on together.
func wantOrder(t *testing.T, names []string, seen []span, limit int) {
	t.Helper()
	for at, s := range seen {
		arrived := slices.Index(names, s.repository)
		if off := arrived - at; off >= limit || off <= -limit {
			t.Errorf("%s arrived as number %d and was pulled as number %d", s.repository, arrived, at)
		}
	}
}
