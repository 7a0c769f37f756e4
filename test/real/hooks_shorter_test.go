package real_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const endlessHooks = `[[handlers.runc.hooks.pre_stop]]
name = "endless"
exec = { command = ["/bin/sleep", "600"] }
timeout = "10m"
`

// testShorter: calls that leave a stop less time than it has, while its hook
// runs. Each container is deaf to TERM, and each call is bounded.
func testShorter(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	h.serve(ctx, t, "shorter", "", map[string]string{"runc": endlessHooks})
	command := crictl(t, h.node, h.proxy.Endpoint())
	for name, c := range map[string]struct {
		call  func(ctx context.Context, p *hookPod, id string) error
		grace time.Duration // as the call says
	}{
		"stop": {func(ctx context.Context, _ *hookPod, id string) error { return h.stop(ctx, id, 1) }, time.Second},
		"kill": {func(ctx context.Context, _ *hookPod, id string) error { return h.stop(ctx, id, 0) }, 0},
		"stopp": {func(ctx context.Context, p *hookPod, _ string) error {
			_, err := command.Run(ctx, "stopp", p.id)
			return err
		}, runtimeTime},
		"rmp": {func(ctx context.Context, p *hookPod, _ string) error {
			_, err := h.front.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
			return err
		}, runtimeTime},
		"rm": {func(ctx context.Context, _ *hookPod, id string) error {
			_, err := h.front.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
			return err
		}, runtimeTime},
		"rm-force": {func(ctx context.Context, _ *hookPod, id string) error {
			_, err := command.Run(ctx, "rm", "--force", id) // Which stops it with no grace at all.
			return err
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := h.runPod(ctx, t, "runc", "shorter-"+name, nil)
			pod.testShortened(ctx, t, c.grace, c.call)
			pod.remove(ctx, t)
		})
	}
}

func (p *hookPod) testShortened(ctx context.Context, t *testing.T, grace time.Duration, call func(context.Context, *hookPod, string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id, err := p.start(ctx, "app", nil, "/bin/stubborn", "/hooks/log")
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() { first <- p.stop(ctx, id, 300) }()
	if err := p.awaitRecord(ctx, id, "endless", "running"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	callErr := call(ctx, p, id)
	took := time.Since(began)
	if callErr != nil || took > grace+runtimeTime+2*tolerance {
		t.Errorf("the call took %s: %v", took, callErr)
	}
	if err := <-first; err != nil || time.Since(began) > took+tolerance {
		t.Errorf("the first stop was answered %s after the call: %v", time.Since(began), err)
	}
	if s, err := p.status(ctx, id); status.Code(err) != codes.NotFound && s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("the container is %s (%v)", s.GetState(), err)
	}
	term, err := p.termed("app", began)
	if err != nil || term >= 0 != (grace > 0) || term >= 0 && term < grace-early {
		t.Errorf("TERM came %s after the call (%v), want it when the grace of %s is over, and none without one", term, err, grace)
	}
}
