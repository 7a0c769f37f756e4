package hooks

import (
	"context"
	"errors"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// EndSandbox is to be called before a StopPodSandbox or a RemovePodSandbox is
// passed on: the containers that run get their hooks and two seconds at most,
// side by side. c names the sandbox; its ID is "". The error is as for EndContainer.
func (e *Engine) EndSandbox(ctx context.Context, c Container) error {
	c.ID = ""
	client, err := e.Backend(ctx, c)
	if err != nil {
		return err
	}
	list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		PodSandboxId: c.Sandbox,
		State:        &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return err
	}
	var ending sync.WaitGroup
	errs := make([]error, len(list.GetContainers()))
	for i, running := range list.GetContainers() {
		ending.Go(func() {
			errs[i] = e.EndContainer(ctx, Container{ID: running.GetId(), Sandbox: running.GetPodSandboxId(), Handler: c.Handler})
		})
	}
	ending.Wait()
	return errors.Join(errs...)
}
