package main

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// TestPodsFromBefore: a pod without a RuntimeClass that was made before the proxy
// came has no handler in its runtime's list. It is the default handler's: counted
// there, with its hooks, and kept on its runtime.
func TestPodsFromBefore(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("pre_stop", command("drain")))
	p.stop()
	before := runtimeOf(t, alpha)
	config := sandboxConfig("before")
	sandbox, err := before.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	container, err := before.CreateContainer(t.Context(), createRequest(sandbox.GetPodSandboxId(), "before", "app", "app"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: container.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	p.start()
	if listed := p.handlerOf(sandbox.GetPodSandboxId()); listed != "" {
		t.Errorf("the kubelet sees it as %q's, want it as it was", listed)
	}
	if load := p.daemon.index.Loads()["runc"]; load.Sandboxes != 1 || load.Containers != 1 {
		t.Errorf("the default handler has %+v, want one of each", load)
	}
	if err := p.stopContainer(container.GetContainerId(), 10); err != nil {
		t.Fatal(err)
	}
	p.delivery(journal.PreStop, journal.Delivered)
}
