package main

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestUnknownHandler: refused by name, and nothing is created.
func TestUnknownHandler(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	_, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("a"), RuntimeHandler: "kata"})
	want := `handler "kata" is not configured; known: isolated, runc`
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || s.Message() != want {
		t.Errorf("got %v, want InvalidArgument %s", err, want)
	}
	if n := len(alpha.Calls("RunPodSandbox")) + len(beta.Calls("RunPodSandbox")); n != 0 {
		t.Errorf("%d creates went out", n)
	}
	p.run("a", "") // The default handler's.
	if got := alpha.Sandboxes(); len(got) != 1 || got[0].GetRuntimeHandler() != "runc" {
		t.Errorf("the default handler's sandbox: %v", got)
	}
}

// renamed has the handlers fast, slow (both are the runtime runc of alpha),
// plain (alpha's default runtime) and vm (kata-qemu of beta).
func renamed(t *testing.T) (p *proxy, alpha, beta *fakeruntime.Runtime) {
	t.Helper()
	alpha = fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta = fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"kata-qemu"}})
	p = startProxy(t, `
default_handler = "fast"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[backends.beta]
endpoint = "`+beta.Endpoint()+`"
[handlers.fast]
backend = "alpha"
runtime = "runc"
[handlers.slow]
backend = "alpha"
runtime = "runc"
[handlers.plain]
backend = "alpha"
runtime = ""
[handlers.vm]
backend = "beta"
runtime = "kata-qemu"
`)
	return p, alpha, beta
}

// TestRenamedHandlers: callers see their own names wherever a handler is
// named, also after a restart and for handlers that share a runtime.
func TestRenamedHandlers(t *testing.T) {
	t.Parallel()
	p, alpha, beta := renamed(t)
	want := map[string]string{}
	for _, handler := range []string{"fast", "slow", "plain", "vm"} {
		want[p.run(handler, handler)] = handler
	}
	for _, s := range alpha.Sandboxes() {
		if h := s.GetRuntimeHandler(); h != "runc" && h != "" {
			t.Errorf("alpha was asked for the runtime %q", h)
		}
	}
	if s := beta.Sandboxes(); len(s) != 1 || s[0].GetRuntimeHandler() != "kata-qemu" {
		t.Errorf("beta has %v", s)
	}
	check := func() {
		t.Helper()
		list, err := p.runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil || len(list.GetItems()) != len(want) {
			t.Fatalf("%d sandboxes, %v", len(list.GetItems()), err)
		}
		for _, s := range list.GetItems() {
			if s.GetRuntimeHandler() != want[s.GetId()] {
				t.Errorf("listed as %q, want %q", s.GetRuntimeHandler(), want[s.GetId()])
			}
			got, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.GetId()})
			if err != nil || got.GetStatus().GetRuntimeHandler() != want[s.GetId()] {
				t.Errorf("status says %q, %v, want %q", got.GetStatus().GetRuntimeHandler(), err, want[s.GetId()])
			}
		}
	}
	check()
	p.restart()
	check()
	// Nothing is kept of a pod that is gone.
	for id := range want {
		if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id[:12]}); err != nil {
			t.Error(err)
		}
	}
	if all, err := p.daemon.pinsOnDisk(); err != nil || len(all) != 0 {
		t.Errorf("handlers of removed pods on disk: %v, %v", all, err)
	}
	if s, c := p.daemon.index.Count(); s+c != 0 {
		t.Errorf("%d sandboxes and %d containers are still routed", s, c)
	}
}

// TestAttemptStays: an attempt at a pod whose answer was lost goes to the same
// backend again, though its RuntimeClass names another handler by now.
func TestAttemptStays(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	beta.Inject("RunPodSandbox", fakeruntime.Fault{AfterEffect: true, Err: status.Error(codes.DeadlineExceeded, "slow"), Times: 1})
	request := &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("a"), RuntimeHandler: "isolated"}
	if _, err := p.runtime.RunPodSandbox(t.Context(), request); status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	request.RuntimeHandler = "runc"
	if _, err := p.runtime.RunPodSandbox(t.Context(), request); err == nil || !strings.Contains(err.Error(), "reserve") {
		t.Errorf("got %v, want beta's word that the name is reserved", err)
	}
	if _, err := p.runtime.RunPodSandbox(t.Context(), request); err == nil {
		t.Error("a third try made a second sandbox: \"reserved\" was taken for a refusal")
	}
	if n := len(alpha.Calls("RunPodSandbox")); n != 0 {
		t.Errorf("alpha got %d creates", n)
	}
	// Another pod of the same uid is another pod, and gets its own handler.
	other := &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("other"), RuntimeHandler: "isolated"}
	p.run("first", "runc")
	other.Config.Metadata.Uid = sandboxConfig("first").GetMetadata().GetUid()
	before := len(beta.Sandboxes())
	if _, err := p.runtime.RunPodSandbox(t.Context(), other); err != nil || len(beta.Sandboxes()) != before+1 {
		t.Errorf("a pod with the uid of another: %v, and beta has %d sandboxes", err, len(beta.Sandboxes()))
	}
	unknown := &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("a"), RuntimeHandler: "kata"}
	if _, err := p.runtime.RunPodSandbox(t.Context(), unknown); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an unknown handler for the same attempt: %v, want InvalidArgument", err)
	}
	// What was created is found all the same.
	id := beta.Sandboxes()[0].GetId()
	if _, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); err != nil {
		t.Error(err)
	}
	// One that a runtime refused may go elsewhere.
	beta.Inject("RunPodSandbox", fakeruntime.Fault{Err: status.Error(codes.Unknown, "no network"), Times: 1})
	refused := &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("b"), RuntimeHandler: "isolated"}
	if _, err := p.runtime.RunPodSandbox(t.Context(), refused); err == nil {
		t.Fatal("no error")
	}
	refused.RuntimeHandler = "runc"
	if _, err := p.runtime.RunPodSandbox(t.Context(), refused); err != nil {
		t.Error(err)
	}
	if n := len(alpha.Calls("RunPodSandbox")); n != 2 {
		t.Errorf("alpha got %d creates, want those of first and b", n)
	}
}

// TestRestoredPod: its containers' image specs name the handler as the backend
// does.
func TestRestoredPod(t *testing.T) {
	t.Parallel()
	p, _, beta := renamed(t)
	beta.Configure(func(o *fakeruntime.Options) { o.PodCheckpoints = true })
	image := &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "vm"}
	_, err := p.runtime.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{
		Config: sandboxConfig("r"), RuntimeHandler: "vm", CheckpointPath: "/x",
		ContainerConfigs: []*runtimeapi.ContainerConfig{{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: image}},
	})
	calls := beta.Calls("RestorePod")
	if len(calls) != 1 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	got := calls[0].Request.(*runtimeapi.RestorePodRequest) //nolint:errcheck,forcetypeassert // A test may panic.
	if got.GetRuntimeHandler() != "kata-qemu" || got.GetContainerConfigs()[0].GetImage().GetRuntimeHandler() != "kata-qemu" {
		t.Errorf("the backend got %v", got)
	}
}

// TestAmbiguousID: a short id that two backends know names both.
func TestAmbiguousID(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddSandbox(fakeruntime.Sandbox{ID: "abc1", Config: sandboxConfig("a")})
	beta.AddSandbox(fakeruntime.Sandbox{ID: "abc2", Config: sandboxConfig("b")})
	_, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "abc"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"alpha"`) || !strings.Contains(err.Error(), `"beta"`) {
		t.Errorf("got %v, want InvalidArgument naming both", err)
	}
	if _, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "abc2"}); err != nil {
		t.Error(err)
	}
}

// TestCgroupDrivers: a backend with another driver than the default's takes no
// new sandboxes; the rest serves.
func TestCgroupDrivers(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	before := p.run("before", "isolated")
	beta.Configure(func(o *fakeruntime.Options) { o.CgroupDriver = runtimeapi.CgroupDriver_CGROUPFS })
	p.restart()
	_, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("b"), RuntimeHandler: "isolated"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "CGROUPFS") || !strings.Contains(err.Error(), "SYSTEMD") {
		t.Errorf("got %v, want FailedPrecondition naming both drivers", err)
	}
	p.run("a", "runc")
	if _, err := p.runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: before}); err != nil {
		t.Error(err)
	}
}

// TestUpdateRuntimeConfig: to all, and an error when one does not take it.
func TestUpdateRuntimeConfig(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	request := &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.0.0.0/24"}}}
	if _, err := p.runtime.UpdateRuntimeConfig(t.Context(), request); err != nil {
		t.Error(err)
	}
	for _, r := range []*fakeruntime.Runtime{alpha, beta} {
		if n := len(r.Calls("UpdateRuntimeConfig")); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	}
	beta.Inject("UpdateRuntimeConfig", fakeruntime.Fault{Err: status.Error(codes.Internal, "disk full")})
	if _, err := p.runtime.UpdateRuntimeConfig(t.Context(), request); status.Code(err) != codes.Internal {
		t.Errorf("got %v, want beta's error", err)
	}
}

// TestMetricDescriptors: each once, and a disagreement is an error.
func TestMetricDescriptors(t *testing.T) {
	t.Parallel()
	p, alpha, _ := twoBackends(t)
	direct, err := runtimeOf(t, alpha).ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	names := func(r *runtimeapi.ListMetricDescriptorsResponse) (names []string) {
		for _, d := range r.GetDescriptors() {
			names = append(names, d.GetName())
		}
		return names
	}
	got, err := p.runtime.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil || len(names(direct)) == 0 || !slices.Equal(names(got), names(direct)) {
		t.Errorf("got %v, %v, want those of one backend: %v", names(got), err, names(direct))
	}
}
