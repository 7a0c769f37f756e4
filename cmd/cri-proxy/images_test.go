package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// kubelet sends image calls as the kubelet does, with its gate
// RuntimeClassInImageCriApi off or on.
type kubelet struct {
	t    *testing.T
	p    *proxy
	gate bool
}

// kubeletPod is a pod as the kubelet knows it.
type kubeletPod struct {
	handler     string
	sandbox     string
	config      *runtimeapi.PodSandboxConfig
	annotations map[string]string // Those of now; config has those of the sandbox's start.
}

// gates are the gate's two settings, by the name of their tests.
func gates() map[string]bool { return map[string]bool{"gate off": false, "gate on": true} }

// run runs a pod whose user gave it an annotation.
func (k kubelet) run(name, handler string) *kubeletPod {
	k.t.Helper()
	return k.runPod(name, handler, map[string]string{"example.org/pod": name})
}

// plain runs a pod without annotations but the kubelet's own.
func (k kubelet) plain(name, handler string) *kubeletPod {
	k.t.Helper()
	return k.runPod(name, handler, nil)
}

func (k kubelet) runPod(name, handler string, own map[string]string) *kubeletPod {
	k.t.Helper()
	config := sandboxConfig(name)
	config.Annotations = map[string]string{
		"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z " + name, "kubernetes.io/config.source": "api",
	}
	maps.Copy(config.GetAnnotations(), own)
	r, err := k.p.runtime.RunPodSandbox(k.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		k.t.Fatal(err)
	}
	return &kubeletPod{handler: handler, sandbox: r.GetPodSandboxId(), config: config, annotations: config.GetAnnotations()}
}

// restarted is the pod after a restart of the kubelet, which sees it anew.
func (p *kubeletPod) restarted() *kubeletPod {
	return p.edited("kubernetes.io/config.seen", "2026-02-02T00:00:00.000000000Z "+p.config.GetMetadata().GetName())
}

// edited is the pod after somebody changed an annotation.
func (p *kubeletPod) edited(key, value string) *kubeletPod {
	changed := *p
	changed.annotations = maps.Clone(p.annotations)
	changed.annotations[key] = value
	return &changed
}

// now is the pod's description in a call of now.
func (p *kubeletPod) now() *runtimeapi.PodSandboxConfig {
	config := proto.CloneOf(p.config)
	config.Annotations = p.annotations
	return config
}

// spec is what the kubelet asks and pulls with: the default tag added.
func (k kubelet) spec(p *kubeletPod, image string) *runtimeapi.ImageSpec {
	if !strings.ContainsAny(image, ":@") {
		image += ":latest"
	}
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: p.annotations}
	if k.gate {
		spec.RuntimeHandler = p.handler
	}
	return spec
}

// status asks whether the pod's image is there.
func (k kubelet) status(p *kubeletPod, image string) (*runtimeapi.Image, error) {
	r, err := k.p.images.ImageStatus(k.t.Context(), &runtimeapi.ImageStatusRequest{Image: k.spec(p, image)})
	return r.GetImage(), err
}

// pull pulls and then asks for the image's size.
func (k kubelet) pull(p *kubeletPod, image string, auth *runtimeapi.AuthConfig) (ref string, err error) {
	r, err := k.p.images.PullImage(k.t.Context(), &runtimeapi.PullImageRequest{Image: k.spec(p, image), Auth: auth, SandboxConfig: p.now()})
	if err != nil {
		return "", err
	}
	if _, err := k.status(p, image); err != nil {
		k.t.Errorf("ask for the size of %s: %v", image, err)
	}
	return r.GetImageRef(), nil
}

// user asks for the image's user, in a call that names nothing but the image.
func (k kubelet) user(image string) (string, error) {
	r, err := k.p.images.ImageStatus(k.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return "", err
	}
	if r.GetImage() == nil {
		return "absent", nil
	}
	return r.GetImage().GetUsername(), nil
}

func (kubelet) createRequest(p *kubeletPod, name, image, ref string) *runtimeapi.CreateContainerRequest {
	request := createRequest(p.sandbox, p.config.GetMetadata().GetName(), name, ref)
	request.SandboxConfig = p.now()
	request.Config.Image.UserSpecifiedImage = image
	return request
}

func (k kubelet) create(p *kubeletPod, name, image, ref string) error {
	_, err := k.p.runtime.CreateContainer(k.t.Context(), k.createRequest(p, name, image, ref))
	return err
}

// mustCreate creates a container by the image's name.
func (k kubelet) mustCreate(p *kubeletPod, name, image string) {
	k.t.Helper()
	if err := k.create(p, name, image, image); err != nil {
		k.t.Fatal(err)
	}
}

// wantPresent fails unless the image is, or is not, there for the pod.
func (k kubelet) wantPresent(p *kubeletPod, image string, want bool) {
	k.t.Helper()
	found, err := k.status(p, image)
	if err != nil || (found != nil) != want {
		k.t.Errorf("%s for %s: present %t, %v; want present %t", image, p.config.GetMetadata().GetName(), found != nil, err, want)
	}
}

func (k kubelet) wantUser(image, want string) {
	k.t.Helper()
	if got, err := k.user(image); err != nil || got != want {
		k.t.Errorf("the user of %s: %q, %v; want %q", image, got, err, want)
	}
}

// wantCode fails unless err has this code and all these texts.
func wantCode(t *testing.T, what string, err error, code codes.Code, texts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
}

// wantCalls fails unless each fake got that many calls of a method.
func wantCalls(t *testing.T, method string, want map[*fakeruntime.Runtime]int) {
	t.Helper()
	for fake, n := range want {
		if got := len(fake.Calls(method)); got != n {
			t.Errorf("%s got %d calls of %s, want %d", fake.Endpoint(), got, method, n)
		}
	}
}

// lastCall is the newest call of a method that a fake got.
func lastCall[T proto.Message](t *testing.T, fake *fakeruntime.Runtime, method string) (fakeruntime.Call, T) {
	t.Helper()
	calls := fake.Calls(method)
	if len(calls) == 0 {
		t.Fatalf("no call of %s arrived", method)
	}
	last := calls[len(calls)-1]
	request, ok := last.Request.(T)
	if !ok {
		t.Fatalf("%s came as %T", method, last.Request)
	}
	return last, request
}

// withUnknown encodes a request and adds a field that cri-api does not know.
func withUnknown(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendTag(b, 60001, protowire.BytesType)
	return protowire.AppendString(b, "from the future")
}

// invoke sends bytes as they are.
func (p *proxy) invoke(ctx context.Context, method string, request []byte) error {
	answer := &rawcri.Frame{}
	defer answer.Free()
	return p.conn.Invoke(ctx, method, rawcri.NewFrame(request), answer)
}

// twoUsers puts an image into both stores, with another user in each.
func twoUsers(alpha, beta *fakeruntime.Runtime, image string) {
	alpha.AddImage(image, nil)
	beta.AddImage(image, nil)
	alpha.SetUser(image, nil, "of-alpha")
	beta.SetUser(image, nil, "of-beta")
}

func (p *proxy) waitAway(name string) {
	p.t.Helper()
	eventually(p.t, name+" is away", func() bool { return !p.daemon.backends().Get(name).Up() })
}

func (p *proxy) waitUp(name string) {
	p.t.Helper()
	eventually(p.t, name+" is up", p.daemon.backends().Get(name).Up)
}

// ids returns the ids of images.
func ids(images []*runtimeapi.Image) []string {
	var found []string
	for _, i := range images {
		found = append(found, i.GetId())
	}
	slices.Sort(found)
	return found
}
