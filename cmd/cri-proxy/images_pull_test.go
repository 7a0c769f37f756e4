package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const handlerAnnotation = "io.containerd.cri.runtime-handler"

// pullArrived is what of a pull is looked at where it arrived.
type pullArrived struct{ spec, annotation string }

func arrivedPull(t *testing.T, fake *fakeruntime.Runtime) pullArrived {
	t.Helper()
	_, r := lastCall[*runtimeapi.PullImageRequest](t, fake, "PullImage")
	return pullArrived{r.GetImage().GetRuntimeHandler(), r.GetSandboxConfig().GetAnnotations()[handlerAnnotation]}
}

// TestPullImageOfPods: a pull goes to the store of its pod, with the runtime's
// name where each containerd looks for it.
func TestPullImageOfPods(t *testing.T) {
	t.Parallel()
	for name, gate := range gates() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t, `[handlers.vm]
	backend = "beta"
	runtime = "isolated-vm"
	[handlers.plain]
	backend = "beta"
	runtime = ""`)
			beta.Configure(func(o *fakeruntime.Options) { o.Runtimes = append(o.Runtimes, "isolated-vm") })
			k := kubelet{t, p, gate}
			for _, c := range []struct {
				handler string
				to      *fakeruntime.Runtime
				want    pullArrived
			}{
				{"runc", alpha, pullArrived{"runc", "runc"}},
				{"", alpha, pullArrived{"runc", "runc"}},
				{"isolated", beta, pullArrived{"isolated", "isolated"}},
				{"vm", beta, pullArrived{"isolated-vm", "isolated-vm"}},
				{"plain", beta, pullArrived{"", ""}},
			} {
				pod := k.run("pod-"+c.handler, c.handler)
				alpha.ClearJournal()
				beta.ClearJournal()
				ref, err := k.pull(pod, "app", nil)
				if err != nil || ref == "" {
					t.Errorf("%q: %q, %v", c.handler, ref, err)
				}
				if got := arrivedPull(t, c.to); got != c.want {
					t.Errorf("%q: arrived with %+v, want %+v", c.handler, got, c.want)
				}
				if n := len(alpha.Calls("PullImage")) + len(beta.Calls("PullImage")); n != 1 {
					t.Errorf("%q: %d pulls, want 1", c.handler, n)
				}
			}
		})
	}
}

// TestPullImageWithoutPod: what crictl and critest send goes to the default
// handler's store, or to that of the handler they name.
func TestPullImageWithoutPod(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	app := &runtimeapi.ImageSpec{Image: "app"}
	labels := &runtimeapi.PodSandboxConfig{Labels: map[string]string{"a": "b"}}
	for name, c := range map[string]struct {
		request *runtimeapi.PullImageRequest
		to      *fakeruntime.Runtime
		want    pullArrived
	}{
		"crictl":           {&runtimeapi.PullImageRequest{Image: app}, alpha, pullArrived{"runc", ""}},
		"critest":          {&runtimeapi.PullImageRequest{Image: app, SandboxConfig: labels}, alpha, pullArrived{"runc", "runc"}},
		"a pod to come":    {&runtimeapi.PullImageRequest{Image: app, SandboxConfig: sandboxConfig("x")}, alpha, pullArrived{"runc", "runc"}},
		"handler":          {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "isolated"}}, beta, pullArrived{"isolated", ""}},
		"handler and more": {&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "isolated"}, SandboxConfig: labels}, beta, pullArrived{"isolated", "isolated"}},
	} {
		if _, err := p.images.PullImage(t.Context(), c.request); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := arrivedPull(t, c.to); got != c.want {
			t.Errorf("%s: arrived with %+v, want %+v", name, got, c.want)
		}
	}
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 3, beta: 2})
	_, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "nope"}})
	wantCode(t, "an unknown handler", err, codes.InvalidArgument, `handler "nope" is not configured; known: isolated, runc`)
	_, err = p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{})
	_, direct := runtimeapi.NewImageServiceClient(dial(t, alpha)).PullImage(t.Context(), &runtimeapi.PullImageRequest{})
	wantCode(t, "no image", err, status.Code(direct), status.Convert(direct).Message())
}

// TestPullImageKeepsRequest: the pull arrives with all that it came with.
func TestPullImageKeepsRequest(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	sent := &runtimeapi.PullImageRequest{Image: k.spec(b, "app"), SandboxConfig: b.now(), Auth: &runtimeapi.AuthConfig{Username: "u"}}
	if err := p.invoke(t.Context(), runtimeapi.ImageService_PullImage_FullMethodName, withUnknown(t, sent)); err != nil {
		t.Fatal(err)
	}
	_, got := lastCall[*runtimeapi.PullImageRequest](t, beta, "PullImage")
	if !hasUnknown(got) {
		t.Error("the unknown field was lost")
	}
	got.ProtoReflect().SetUnknown(nil)
	sent.Image.RuntimeHandler = "isolated"
	sent.SandboxConfig.Annotations = b.edited(handlerAnnotation, "isolated").annotations
	if !proto.Equal(got, sent) {
		t.Errorf("arrived %v\nwant %v", got, sent)
	}
	// What was added is not taken for the pod's.
	k.wantPresent(b, "app", true)
	if s, ok := p.daemon.index.Sandbox(b.sandbox); !ok || s.Annotations[handlerAnnotation] != "" {
		t.Errorf("the pod's annotations are %v", s.Annotations)
	}
}

// hasUnknown reports whether a request has what withUnknown added.
func hasUnknown(m proto.Message) bool {
	number, _, n := protowire.ConsumeTag(m.ProtoReflect().GetUnknown())
	return n > 0 && number == 60001
}

// TestPullImageUnknownPod: a pod whose sandbox the proxy does not know is
// looked for; where it may be on a backend that is away, the pull waits for it.
func TestPullImageUnknownPod(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	lost := func(name string) *kubeletPod {
		config := sandboxConfig(name)
		return &kubeletPod{config: config, annotations: config.GetAnnotations(), handler: "isolated"}
	}
	b := lost("b")
	b.sandbox = beta.AddSandbox(fakeruntime.Sandbox{Config: b.config, Handler: "isolated"})
	if _, err := k.pull(b, "app", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := arrivedPull(t, beta), (pullArrived{"isolated", "isolated"}); got != want {
		t.Errorf("arrived with %+v, want %+v", got, want)
	}
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0, beta: 1})

	c := lost("c")
	beta.Inject("ListPodSandbox", fakeruntime.Fault{Hang: true, Times: 1})
	_, err := k.pull(c, "app", nil)
	wantCode(t, "a pod that may be on beta, which hangs", err, codes.Unavailable, "uid-c", `"beta"`)

	beta.Stop()
	p.waitAway("beta")
	_, err = k.pull(c, "app", nil)
	wantCode(t, "a pod that may be on beta", err, codes.Unavailable, "uid-c", `"beta"`)
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0})
	k.gate, c.handler = true, "runc"
	if _, err := k.pull(c, "app", nil); err != nil {
		t.Errorf("a pod whose handler is named: %v", err)
	}
}

// TestPullImageErrors: the runtime's own words and code come back unprefixed,
// since the kubelet reads them.
func TestPullImageErrors(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	for _, want := range []error{
		status.Error(codes.Unknown, "RegistryUnavailable: no answer"),
		status.Error(codes.NotFound, "no such image"), status.Error(codes.Unavailable, "server is not initialized yet"),
	} {
		beta.Inject("PullImage", fakeruntime.Fault{Err: want, Times: 1})
		if _, err := k.pull(b, "app", nil); status.Code(err) != status.Code(want) || err.Error() != want.Error() {
			t.Errorf("%v, want %v", err, want)
		}
	}
	beta.Stop()
	p.waitAway("beta")
	_, err := k.pull(b, "app", nil)
	wantCode(t, "a store that is away", err, codes.Unavailable, `"beta"`)
}

// TestCredentials: those of a pull arrive at one store, in that call alone,
// and stand in no log and no error.
func TestCredentials(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	logger := logrus.New()
	logger.SetOutput(&log)
	logger.SetLevel(logrus.TraceLevel)
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta := fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
	p := startLogging(t, twoBackendsConfig(alpha, beta, ""), logrus.NewEntry(logger))
	k := kubelet{t: t, p: p}
	a, b := k.run("a", "runc"), k.run("b", "isolated")
	const secret = "s3cr3t"
	auth := &runtimeapi.AuthConfig{Username: "u-" + secret, Password: secret, Auth: secret, IdentityToken: secret, RegistryToken: secret}
	ref, err := k.pull(b, "app", auth)
	if err != nil {
		t.Fatal(err)
	}
	if _, r := lastCall[*runtimeapi.PullImageRequest](t, beta, "PullImage"); !proto.Equal(r.GetAuth(), auth) {
		t.Error("the credentials arrived changed")
	}
	beta.Inject("PullImage", fakeruntime.Fault{Err: status.Error(codes.PermissionDenied, "no"), Times: 1})
	_, err = k.pull(b, "other", auth)
	wantCode(t, "refused", err, codes.PermissionDenied)
	_, err = p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "nope"}, Auth: auth})
	wantCode(t, "an unknown handler", err, codes.InvalidArgument)
	if err := k.create(a, "c", "app", ref); err != nil { // Pulled anew, in alpha.
		t.Fatal(err)
	}
	for _, c := range alpha.Journal() {
		if bytes.Contains(c.Raw, []byte(secret)) {
			t.Errorf("the other backend got the credentials in %s", c.Method)
		}
	}
	if got := len(beta.Calls("PullImage")); got != 2 {
		t.Errorf("%d pulls on beta, want 2", got)
	}
	beta.Stop()
	p.waitAway("beta")
	_, err = k.pull(b, "app", auth)
	wantCode(t, "away", err, codes.Unavailable)
	p.stop()
	if text := log.String(); len(text) == 0 || strings.Contains(text+fmt.Sprint(err), secret) {
		t.Errorf("empty log, or credentials in it:\n%s", text)
	}
}

// syncBuffer is a buffer that a logger and a test share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
