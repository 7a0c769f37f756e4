package fakeruntime

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type eventStream = grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse]

func subscribe(ctx context.Context, t *testing.T, c client) eventStream {
	t.Helper()
	return must[eventStream](t)(c.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}))
}

// next receives n events as "id kind".
func next(t *testing.T, stream eventStream, n int) []string {
	t.Helper()
	var got []string
	for range n {
		event := must[*runtimeapi.ContainerEventResponse](t)(stream.Recv())
		got = append(got, event.GetContainerId()+" "+event.GetContainerEventType().String())
	}
	return got
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx := bounded(t)
	one, two := subscribe(ctx, t, c), subscribe(ctx, t, c)
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(ctx, 2))
	pod, id := runPod(t, c, "a")
	r.Exit(id, 7)
	must[*runtimeapi.RemovePodSandboxResponse](t)(c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}))
	want := []string{
		pod + " CONTAINER_CREATED_EVENT", pod + " CONTAINER_STARTED_EVENT",
		id + " CONTAINER_CREATED_EVENT", id + " CONTAINER_STARTED_EVENT", id + " CONTAINER_STOPPED_EVENT",
		pod + " CONTAINER_STOPPED_EVENT", id + " CONTAINER_DELETED_EVENT", pod + " CONTAINER_DELETED_EVENT",
	}
	for _, stream := range []eventStream{one, two} {
		if got := next(t, stream, len(want)); !slices.Equal(got, want) {
			t.Errorf("events are %v, want %v", got, want)
		}
	}
}

func TestEventShowsThePod(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx := bounded(t)
	id := r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{Config: podConfig("a")}), State: runtimeapi.ContainerState_CONTAINER_RUNNING})
	r.Exit(id, 7)
	event := must[*runtimeapi.ContainerEventResponse](t)(subscribe(ctx, t, c).Recv())
	if event.GetPodSandboxStatus().GetMetadata().GetName() != "a" || event.GetContainersStatuses()[0].GetExitCode() != 7 || event.GetCreatedAt() == 0 {
		t.Errorf("the event is %v", event)
	}
}

func TestEventsWaitForASubscriber(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx := bounded(t)
	r.Emit(&runtimeapi.ContainerEventResponse{ContainerId: "early"})
	if got := next(t, subscribe(ctx, t, c), 1); got[0] != "early CONTAINER_CREATED_EVENT" {
		t.Errorf("received %v", got)
	}
	gone, cancel := context.WithCancel(ctx)
	subscribe(gone, t, c)
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(ctx, 2))
	cancel()
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(ctx, 1))
}

func TestStopEndsEventStreams(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	ctx := bounded(t)
	stream := subscribe(ctx, t, c)
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(ctx, 1))
	r.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream of a stopped runtime ends with %v", err)
	}
	r.Emit(&runtimeapi.ContainerEventResponse{ContainerId: "meanwhile"})
	r.Restart()
	if got := next(t, subscribe(ctx, t, dial(t, r)), 1); got[0] != "meanwhile CONTAINER_CREATED_EVENT" {
		t.Errorf("received %v", got)
	}
}

func TestSharedEvents(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{SharedEvents: true})
	ctx := bounded(t)
	one, two := subscribe(ctx, t, c), subscribe(ctx, t, c)
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(ctx, 2))
	for _, id := range []string{"1", "2"} {
		r.Emit(&runtimeapi.ContainerEventResponse{ContainerId: id})
	}
	got := append(next(t, one, 1), next(t, two, 1)...)
	slices.Sort(got)
	if !slices.Equal(got, []string{"1 CONTAINER_CREATED_EVENT", "2 CONTAINER_CREATED_EVENT"}) {
		t.Errorf("both subscribers together received %v", got)
	}
}
