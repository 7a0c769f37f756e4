package real_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// pair is one containerd, asked directly and through a proxy that has another
// one as its default.
type pair struct {
	*stores

	containerd      *rig.Containerd
	direct, proxied *rig.Kubelet
	handler         string
}

// newPair starts a containerd for the test, and the proxy.
func newPair(ctx context.Context, t *testing.T, s *stores, options rig.ContainerdOptions) *pair {
	t.Helper()
	options.Handlers = []string{second}
	containerd, err := s.Containerd(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	s.reach(t, containerd)
	proxy := startProxy(ctx, t, s.Rig, options.Name+"-p", s.alpha, containerd)
	return &pair{s, containerd, kubelet(t, s.node, containerd.Endpoint()), kubelet(t, s.node, proxy.Endpoint()), second}
}

// testRegistryFaults: what a registry does wrong reaches the caller as the
// runtime's own error, with its own code.
func testRegistryFaults(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	p := newPair(ctx, t, s, rig.ContainerdOptions{Name: "faults", PullTimeout: "1s"})
	direct, proxied := sandbox(ctx, t, p.direct, second), sandbox(ctx, t, p.proxied, second)
	absent := "@sha256:" + strings.Repeat("0", 64)
	for name, image := range map[string]string{
		"401":          "faulty.test/status-401/app:v1",
		"404":          "faulty.test/status-404/app:v1",
		"429":          "faulty.test/status-429/app:v1",
		"500":          "faulty.test/status-500/app:v1",
		"hanging":      p.push(ctx, t, "hang/app", rig.Image{Ballast: 1}),
		"corrupt":      p.push(ctx, t, "corrupt/app", rig.Image{Ballast: 1}),
		"altered":      p.push(ctx, t, "altered/app", rig.Image{Ballast: 1}),
		"platform":     p.push(ctx, t, "platform/app", rig.Image{Platforms: []string{"linux/s390x"}}),
		"digest":       p.push(ctx, t, "digest/app", rig.Image{})[:len("faulty.test/digest/app")] + absent,
		"no-image":     "example.test/no-such-image:v1",
		"no-registry":  "gone.test/app:v1",
		"no-reference": "UPPER:case:twice",
		"password":     "red.test/nobody:v1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			_, want := p.direct.Images.PullImage(ctx, pullRequest(direct, image))
			_, got := p.proxied.Images.PullImage(ctx, pullRequest(proxied, image))
			if ctx.Err() != nil {
				t.Fatal("the runtime does not give up by itself")
			}
			if want == nil || got == nil {
				t.Fatalf("directly %v, through the proxy %v: want errors", want, got)
			}
			wantSameError(t, image, varying(got), varying(want))
			t.Logf("%s: %s", status.Code(got), status.Convert(got).Message())
		})
	}
}

func (p *pair) push(ctx context.Context, t *testing.T, repository string, made rig.Image) string {
	t.Helper()
	return push(ctx, t, p, "faulty.test/"+repository+":v1", made).name
}

// varying takes out of an error what differs from call to call.
func varying(err error) error {
	s := status.Convert(err)
	message := regexp.MustCompile(`127\.0\.0\.1:\d{4,5}->127\.0\.0\.1:\d+`).ReplaceAllString(s.Message(), "CONNECTION")
	message = regexp.MustCompile(`ingest/[0-9a-f]{64}|snapshots/\d+/|extract-\d+-\S+`).ReplaceAllString(message, "PATH")
	return status.Error(s.Code(), message)
}

// testReferences: every way to write an image's name gives the same image, and
// the same answers about it, as directly.
func testReferences(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	p := newPair(ctx, t, s, rig.ContainerdOptions{Name: "names"})
	if err := p.containerd.Reach("docker.io", s.faulty.Address); err != nil {
		t.Fatal(err)
	}
	direct, proxied := sandbox(ctx, t, p.direct, second), sandbox(ctx, t, p.proxied, second)
	index := push(ctx, t, s, "faulty.test/names/index:v1", rig.Image{Platforms: []string{"linux/amd64", "linux/arm64", "linux/s390x"}})
	plain := push(ctx, t, s, "faulty.test/names/plain:v1", rig.Image{})
	hub := push(ctx, t, s, "docker.io/library/names-hub:latest", rig.Image{})
	base, _ := strings.CutSuffix(plain.name, ":v1")
	for _, c := range []struct{ reference, id string }{
		{index.name, index.ID},
		{"faulty.test/names/index@" + index.Digest, index.ID},
		{plain.name, plain.ID},
		{base + "@" + plain.Digest, plain.ID},
		{plain.name + "@" + plain.Digest, plain.ID},
		{"names-hub", hub.ID},
		{"names-hub:latest", hub.ID},
		{"library/names-hub", hub.ID},
		{"docker.io/library/names-hub@" + hub.Digest, hub.ID},
	} {
		want := come(ctx, t, p.direct, direct, c.reference)
		got := come(ctx, t, p.proxied, proxied, c.reference)
		if want.GetImage().GetId() != c.id {
			t.Errorf("%s directly is %s, want %s", c.reference, want.GetImage().GetId(), c.id)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s through the proxy:\n%v\ndirectly:\n%v", c.reference, got, want)
		}
	}
	started := start(ctx, t, p.proxied, proxied, rig.KubeletContainer{Image: "names-hub"}, true)
	if started.Ref != hub.ID {
		t.Errorf("the container's image is %s, want %s", started.Ref, hub.ID)
	}
}

// come pulls an image, asks about it, and removes it.
func come(ctx context.Context, t *testing.T, k *rig.Kubelet, pod *rig.KubeletPod, reference string) *runtimeapi.ImageStatusResponse {
	t.Helper()
	pulled, err := k.Images.PullImage(ctx, pullRequest(pod, reference))
	if err != nil {
		t.Fatalf("%s: %v", reference, err)
	}
	about := &runtimeapi.ImageSpec{Image: reference, Annotations: pod.Config.GetAnnotations()}
	answer, err := k.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: about})
	if err != nil {
		t.Fatalf("%s: %v", reference, err)
	}
	if pulled.GetImageRef() != answer.GetImage().GetId() {
		t.Errorf("%s: pulled as %s and known as %s", reference, pulled.GetImageRef(), answer.GetImage().GetId())
	}
	if _, err := k.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: pulled.GetImageRef()}}); err != nil {
		t.Fatalf("%s: %v", reference, err)
	}
	slices.Sort(answer.GetImage().GetRepoTags())
	return answer
}

// testFullDisk: a store without room says so, and the other has its images.
func testFullDisk(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	p := newPair(ctx, t, s, rig.ContainerdOptions{Name: "full", DiskBytes: 16 << 20})
	image := push(ctx, t, s, "faulty.test/full/app:v1", rig.Image{Ballast: 24 << 20})
	direct, proxied := sandbox(ctx, t, p.direct, second), sandbox(ctx, t, p.proxied, second)
	_, want := p.direct.Images.PullImage(ctx, pullRequest(direct, image.name))
	_, got := p.proxied.Images.PullImage(ctx, pullRequest(proxied, image.name))
	wantRefused(t, want, "no space left on device")
	wantRefused(t, got, "no space left on device")
	// Which file is the first without room is left to chance.
	begin := fmt.Sprintf("failed to pull and unpack image %q: ", image.name)
	if g, w := status.Convert(got), status.Convert(want); g.Code() != w.Code() || !strings.HasPrefix(g.Message(), begin) || !strings.HasPrefix(w.Message(), begin) {
		t.Errorf("through the proxy %v, directly %v", got, want)
	}
	start(ctx, t, p.proxied, sandbox(ctx, t, p.proxied, "runc"), rig.KubeletContainer{Image: image.name}, true)
	wantImage(ctx, t, crictl(t, s.node, s.alpha.Endpoint()), image, true)
}
