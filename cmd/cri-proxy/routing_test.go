package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestRoutesAfterRestart: ids are learnt anew from the backends; those of one
// that is away are Unavailable, and route when it is back.
func TestRoutesAfterRestart(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	a, b := p.run("a", "runc"), p.run("b", "isolated")
	ca, cb := p.create(a, "a", "c"), p.create(b, "b", "c")
	if len(alpha.Sandboxes()) != 1 || len(beta.Sandboxes()) != 1 {
		t.Fatalf("alpha has %d sandboxes, beta %d, want one each", len(alpha.Sandboxes()), len(beta.Sandboxes()))
	}
	check := func(wantBeta codes.Code) {
		t.Helper()
		for id, want := range map[string]codes.Code{a: codes.OK, b: wantBeta} {
			_, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
			if status.Code(err) != want {
				t.Errorf("sandbox of %s: %v, want %s", id, err, want)
			}
		}
		for id, want := range map[string]codes.Code{ca: codes.OK, cb: wantBeta, ca[:13]: codes.OK} {
			_, err := p.runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
			if status.Code(err) != want {
				t.Errorf("container %s: %v, want %s", id, err, want)
			}
		}
	}
	check(codes.OK)
	p.restart()
	check(codes.OK)

	beta.Stop()
	p.restart()
	check(codes.Unavailable)
	beta.Restart()
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)
	check(codes.OK)
}

// TestBadIDs: what a caller gets for an id that is wrong.
func TestBadIDs(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	a, b := p.run("a", "runc"), p.run("b", "isolated")
	_ = a
	_ = b
	stop := func(id string) error {
		_, err := p.runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
		return err
	}
	stat := func(id string) error {
		_, err := p.runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
		return err
	}
	unknown := strings.Repeat("ab", 32)
	if err := stop(unknown); err != nil {
		t.Errorf("stop of an unknown container: %v, want containerd's success", err)
	}
	if err := stat(unknown); status.Code(err) != codes.NotFound {
		t.Errorf("status of an unknown container: %v, want NotFound", err)
	}
	_, direct := runtimeOf(t, alpha).ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{})
	if err := stat(""); status.Code(err) != status.Code(direct) || err.Error() != direct.Error() {
		t.Errorf("status of an empty id: %v, want the default backend's %v", err, direct)
	}
	beta.Stop()
	eventually(t, "beta is away", func() bool { return !p.daemon.backends().Get("beta").Up() })
	for name, err := range map[string]error{"stop": stop(unknown), "status": stat(unknown)} {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"beta"`) || !strings.Contains(err.Error(), unknown) {
			t.Errorf("%s of an unknown container while beta is away: %v, want Unavailable naming both", name, err)
		}
	}
}
