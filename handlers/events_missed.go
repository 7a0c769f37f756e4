package handlers

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// catchUp compares what the caller was told with what the backend lists, and
// tells it the difference. The first time there is nothing to compare with: a
// new subscriber is told of nothing that was there before.
func (w *eventWatch) catchUp(ctx context.Context) error {
	now, err := w.list(ctx)
	if err != nil {
		return err
	}
	if w.seen == nil {
		w.seen = now
		return nil
	}
	before := w.seen
	for id, e := range now {
		if before[id] != e {
			if err := w.tell(ctx, id, e); err != nil {
				return err
			}
		}
	}
	for id, e := range before {
		if _, still := now[id]; !still {
			e.kind = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
			if err := w.tell(ctx, id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// list returns each sandbox and container of the backend with the event that
// led to its state.
func (w *eventWatch) list(ctx context.Context) (map[string]seenEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, w.b.Config.ListTimeout.Duration)
	defer cancel()
	var sandboxes runtimeapi.ListPodSandboxResponse
	if err := w.b.List(ctx, "ListPodSandbox", &sandboxes); err != nil {
		return nil, err
	}
	var containers runtimeapi.ListContainersResponse
	if err := w.b.List(ctx, "ListContainers", &containers); err != nil {
		return nil, err
	}
	now := map[string]seenEvent{}
	for _, p := range sandboxes.GetItems() {
		kind := runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
		if p.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
			kind = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
		}
		now[p.GetId()] = seenEvent{kind, p.GetId()}
	}
	for _, c := range containers.GetContainers() {
		now[c.GetId()] = seenEvent{eventOf(c.GetState()), c.GetPodSandboxId()}
	}
	return now, nil
}

func eventOf(s runtimeapi.ContainerState) runtimeapi.ContainerEventType {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	default:
		return runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	}
}

// tell sends an event that was missed, with its pod's status as of now.
func (w *eventWatch) tell(ctx context.Context, id string, e seenEvent) error {
	event := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: e.kind, CreatedAt: time.Now().UnixNano()}
	if err := w.addStatus(ctx, event, e.sandbox); err != nil {
		return err
	}
	frame, err := rawcri.Encode(event)
	if frame, err = w.front().Backends.Translate(w.b, w.call.Method, frame, err); err != nil {
		return err
	}
	w.note(id, e)
	return w.send(ctx, frame)
}

// addStatus adds the sandbox's and its containers' status, those that still
// exist. A call that hangs must not end the backend's events for ever.
func (w *eventWatch) addStatus(ctx context.Context, event *runtimeapi.ContainerEventResponse, sandbox string) error {
	ctx, cancel := context.WithTimeout(ctx, w.b.Config.ListTimeout.Duration)
	defer cancel()
	client := w.b.Runtime()
	pod, err := client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("PodSandboxStatus: %w", err)
	}
	event.PodSandboxStatus = pod.GetStatus()
	list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: sandbox}})
	if err != nil {
		return fmt.Errorf("ListContainers: %w", err)
	}
	for _, c := range list.GetContainers() {
		s, err := client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.GetId()})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return fmt.Errorf("ContainerStatus: %w", err)
		}
		event.ContainersStatuses = append(event.ContainersStatuses, s.GetStatus())
	}
	return nil
}
