package imageservice

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// pullFor pulls as the kubelet does.
func (k kubeletOf) pullFor(ctx context.Context, p *podOf, image string, auth *runtimeapi.AuthConfig, o ...grpc.CallOption) (string, error) {
	answer, err := k.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: k.spec(p, image), Auth: auth, SandboxConfig: p.config}, o...)
	return answer.GetImageRef(), err
}

// authFile writes a docker config.json with these passwords, by registry.
func authFile(t *testing.T, passwords map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	writeAuthFile(t, path, passwords)
	return path
}

func writeAuthFile(t *testing.T, path string, passwords map[string]string) {
	t.Helper()
	auths := map[string]map[string]string{}
	for registry, password := range passwords {
		auths[registry] = map[string]string{"username": "user", "password": password}
	}
	content, err := json.Marshal(map[string]any{"auths": auths})
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// passwords returns those of the pulls that arrived, in order.
func passwords(t *testing.T, of *fakeruntime.Runtime) (all []string) {
	t.Helper()
	for _, c := range of.Calls("PullImage") {
		request, ok := c.Request.(*runtimeapi.PullImageRequest)
		if !ok {
			t.Fatalf("%T", c.Request)
		}
		all = append(all, request.GetAuth().GetPassword())
	}
	of.ClearJournal()
	return all
}

// counted returns the pulls of the handler tenant, by result, where there are any.
func (n *node) counted() map[string]int {
	found := map[string]int{}
	for labels, v := range n.gather("cri_proxy_pulls_total") {
		if result, ok := strings.CutPrefix(labels, "tenant "); ok && v > 0 {
			found[result] = int(v)
		}
	}
	return found
}

// gather returns a counter's values by those of its labels.
func (n *node) gather(name string) map[string]float64 {
	n.t.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name {
				found[strings.Join(labels, " ")] = m.GetCounter().GetValue()
			}
		}
	}
	return found
}

// TestParallelPulls: a hundred pulls of twenty images at once are twenty
// upstream, three at a time, and everybody is served.
func TestParallelPulls(t *testing.T) {
	t.Parallel()
	n, open, tenant := twoStoresOf(t, "max_parallel_pulls = 3")
	k := kubeletOf{node: n}
	var running, most atomic.Int32
	release := make(chan struct{})
	tenant.Configure(func(o *fakeruntime.Options) {
		o.Pull = func(context.Context, *runtimeapi.PullImageRequest) error {
			now := running.Add(1)
			defer running.Add(-1)
			for before := most.Load(); before < now && !most.CompareAndSwap(before, now); before = most.Load() {
				continue
			}
			<-release
			return nil
		}
	})
	var wg sync.WaitGroup
	for i := range 100 {
		p := n.run(fmt.Sprint("p", i), "tenant")
		wg.Go(func() {
			if ref, err := k.pullFor(bounded(t), p, fmt.Sprintf("app:%d", i%20), nil); err != nil || ref == "" {
				t.Errorf("%d: %q, %v", i, ref, err)
			}
		})
	}
	eventually(t, "all wait for a pull", func() bool { return n.service.flights.Waiting() == 100 })
	eventually(t, "three are upstream", func() bool { return running.Load() == 3 })
	close(release)
	wg.Wait()
	if got := most.Load(); got != 3 {
		t.Errorf("%d upstream at once, want 3", got)
	}
	wantPulls(t, map[*fakeruntime.Runtime]int{open: 0, tenant: 20})
	if got := n.counted(); !maps.Equal(got, map[string]int{pullPulled: 20, pullShared: 80}) {
		t.Errorf("counted %v", got)
	}
}

// TestPullsOfOtherHandlersDoNotWait: the limit is one handler's.
func TestPullsOfOtherHandlersDoNotWait(t *testing.T) {
	t.Parallel()
	n, _, both := oneStore(t, "max_parallel_pulls = 1")
	k := kubeletOf{node: n}
	a, b := n.run("a", "tenant"), n.run("b", "open")
	release := make(chan struct{})
	both.Inject("PullImage", fakeruntime.Fault{Until: release, Times: 1})
	var wg sync.WaitGroup
	pull := func(ctx context.Context, p *podOf, image string, want codes.Code) {
		wg.Go(func() {
			if _, err := k.pullFor(ctx, p, image, nil); status.Code(err) != want {
				t.Errorf("%s: %v, want %s", image, err, want)
			}
		})
	}
	pull(bounded(t), a, "app:1", codes.OK)
	if _, err := both.WaitCalls(bounded(t), "PullImage", 1); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(bounded(t))
	pull(ctx, a, "app:2", codes.Canceled)
	if _, err := k.pullFor(bounded(t), b, "app:3", nil); err != nil {
		t.Errorf("the other handler's: %v", err)
	}
	leave()
	pull(bounded(t), a, "app:4", codes.OK)
	close(release)
	wg.Wait()
	for _, c := range both.Calls("PullImage") {
		if request, ok := c.Request.(*runtimeapi.PullImageRequest); !ok || request.GetImage().GetImage() == "app:2" {
			t.Error("the pull whose caller left before its turn arrived")
		}
	}
}

// TestSharedPull: equal pulls of several pods are one upstream, with its header
// and trailer for everybody; other credentials are another pull.
func TestSharedPull(t *testing.T) {
	t.Parallel()
	n, _, tenant := twoStoresOf(t, "")
	k := kubeletOf{node: n}
	release := make(chan struct{})
	tenant.Inject("PullImage", fakeruntime.Fault{Until: release})
	var wg sync.WaitGroup
	var header, trailer [4]metadata.MD
	for i, auth := range []*runtimeapi.AuthConfig{login("x"), login("x"), login("x"), login("y")} {
		p := n.run(fmt.Sprint("p", i), "tenant")
		wg.Go(func() {
			if ref, err := k.pullFor(bounded(t), p, "app", auth, grpc.Header(&header[i]), grpc.Trailer(&trailer[i])); err != nil || ref == "" {
				t.Errorf("%d: %q, %v", i, ref, err)
			}
		})
	}
	eventually(t, "all wait for a pull", func() bool { return n.service.flights.Waiting() == 4 })
	close(release)
	wg.Wait()
	if got := passwords(t, tenant); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"x", "y"}) {
		t.Errorf("%d upstream with the passwords %v", len(got), got)
	}
	for i := range header {
		if !slices.Equal(header[i].Get(fakeruntime.HeaderKey), []string{"b"}) || !slices.Equal(trailer[i].Get(fakeruntime.TrailerKey), []string{"b"}) {
			t.Errorf("%d: header %v, trailer %v", i, header[i], trailer[i])
		}
	}
	if want := map[string]int{pullPulled: 2, pullShared: 2}; !maps.Equal(n.counted(), want) {
		t.Errorf("counted %v, want %v", n.counted(), want)
	}
}

// TestHandlerCredentials: which credentials a pull is tried with.
func TestHandlerCredentials(t *testing.T) {
	t.Parallel()
	file := authFile(t, map[string]string{"r.example": "general", "r.example/team": "team"})
	n, open, tenant := twoStoresOf(t, fmt.Sprintf("auth_files = [%q]", file))
	k := kubeletOf{node: n}
	a, free := n.run("a", "tenant"), n.run("free", "open")
	for name, c := range map[string]struct {
		pod     *podOf
		store   *fakeruntime.Runtime
		image   string
		auth    *runtimeapi.AuthConfig
		accepts string
		want    []string
		fails   bool
	}{
		"the best match":           {a, tenant, "r.example/team/app", nil, "team", []string{"team"}, false},
		"the next match":           {a, tenant, "r.example/team/app", nil, "general", []string{"team", "general"}, false},
		"no match is good":         {a, tenant, "r.example/team/app", nil, "", []string{"team", "general"}, true},
		"nothing matches":          {a, tenant, "other.example/app", nil, "", []string{""}, false},
		"the request's own":        {a, tenant, "r.example/team/app", login("own"), "own", []string{"own"}, false},
		"the request's own alone":  {a, tenant, "r.example/team/app", login("own"), "team", []string{"own"}, true},
		"empty ones":               {a, tenant, "r.example/app", &runtimeapi.AuthConfig{}, "general", []string{"general"}, false},
		"another handler has none": {free, open, "r.example/team/app", nil, "team", []string{""}, true},
		"what is no reference":     {a, tenant, "r.example/UPPER", nil, "", []string{""}, false},
	} {
		c.store.Configure(func(o *fakeruntime.Options) { o.Pull = accepts(c.accepts) })
		_, err := k.pullFor(t.Context(), c.pod, c.image, c.auth)
		if got := passwords(t, c.store); !slices.Equal(got, c.want) {
			t.Errorf("%s: tried %q, want %q", name, got, c.want)
		}
		switch {
		case !c.fails && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.fails && (status.Code(err) != codes.Unknown || !strings.HasPrefix(status.Convert(err).Message(), "pull access denied")):
			t.Errorf("%s: %v, want the runtime's own words", name, err)
		}
	}
	tenant.Configure(func(o *fakeruntime.Options) { o.Pull = accepts("") })
	if id, err := n.service.Pull(t.Context(), "tenant", "r.example/app"); id != "" || status.Code(err) != codes.Unknown {
		t.Errorf("by hand: %q, %v", id, err)
	}
	tenant.Configure(func(o *fakeruntime.Options) { o.Pull = accepts("general") })
	if err := k.create(a, "c", "r.example/create", "r.example/create"); err != nil {
		t.Errorf("a create: %v", err)
	}
	for _, secret := range []string{"general", "own"} {
		if strings.Contains(strings.ReplaceAll(n.log.String(), "team/app", ""), secret) {
			t.Errorf("the log has the password %q:\n%s", secret, n.log)
		}
	}
}

// TestBrokenCredentials: they fail the pulls that need them, of that handler
// alone, until they are mended.
func TestBrokenCredentials(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "none.json")
	n, open, tenant := twoStoresOf(t, fmt.Sprintf("auth_files = [%q]", file))
	k := kubeletOf{node: n}
	a, free := n.run("a", "tenant"), n.run("free", "open")
	if log := n.log.String(); !strings.Contains(log, "level=error") || !strings.Contains(log, file) || !strings.Contains(log, "handler=tenant") {
		t.Errorf("the log does not say what is broken:\n%s", log)
	}
	_, err := k.pullFor(t.Context(), a, "app", nil)
	wantCode(t, err, codes.FailedPrecondition, `handler "tenant"`, file)
	if _, err := k.pullFor(t.Context(), a, "app", login("own")); err != nil {
		t.Errorf("with credentials of its own: %v", err)
	}
	if _, err := k.pullFor(t.Context(), free, "app", nil); err != nil {
		t.Errorf("of another handler: %v", err)
	}
	writeAuthFile(t, file, map[string]string{"docker.io": "mended"})
	if _, err := k.pullFor(t.Context(), a, "app", nil); err != nil {
		t.Errorf("after it was mended: %v", err)
	}
	if got := append(passwords(t, tenant), passwords(t, open)...); !slices.Equal(got, []string{"own", "mended", ""}) {
		t.Errorf("pulled with %q", got)
	}
}

// TestReferencesPassExactly: whatever the name, it arrives as it came, and what
// the runtime says of it comes back with code, message and details.
func TestReferencesPassExactly(t *testing.T) {
	t.Parallel()
	n, _, tenant := twoStoresOf(t, `allow = ["*"]`+"\nmax_parallel_pulls = 2")
	k := kubeletOf{node: n}
	a := n.run("a", "tenant")
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, image := range []string{
		"app:latest", "library/app:1", "docker.io/app:1", "r.example:5000/a/b:v1.2_3-x", "app@" + digest, "r.example/app:1@" + digest, "UPPER:1", digest,
	} {
		details, err := status.New(codes.ResourceExhausted, "RegistryUnavailable: 429 for "+image).WithDetails(&runtimeapi.ImageSpec{Image: "x"})
		if err != nil {
			t.Fatal(err)
		}
		tenant.Inject("PullImage", fakeruntime.Fault{Err: details.Err(), Times: 1})
		_, err = k.pullFor(t.Context(), a, image, nil)
		if !proto.Equal(status.Convert(err).Proto(), details.Proto()) {
			t.Errorf("%v, want %v", err, details.Err())
		}
		calls := tenant.Calls("PullImage")
		if request, ok := calls[len(calls)-1].Request.(*runtimeapi.PullImageRequest); !ok || request.GetImage().GetImage() != image {
			t.Errorf("%s arrived as %v", image, request.GetImage())
		}
	}
}

// TestPulledBytes: an image counts when it comes, not when it was there.
func TestPulledBytes(t *testing.T) {
	t.Parallel()
	n, _, tenant := twoStoresOf(t, always)
	k := kubeletOf{node: n}
	a := n.run("a", "tenant")
	tenant.Publish("app", &runtimeapi.Image{Size: 1000})
	tenant.AddImage("there", &runtimeapi.Image{Size: 1})
	for _, round := range []string{"first ", "second "} {
		k.wantStart(a, round+"app", "app", "IfNotPresent", 1)
		k.wantStart(a, round+"there", "there", "IfNotPresent", 1)
	}
	if got := n.gather("cri_proxy_pulled_bytes_total"); !maps.Equal(got, map[string]float64{"tenant": 1000, "open": 0}) {
		t.Errorf("%v, want 1000 bytes of tenant", got)
	}
}
