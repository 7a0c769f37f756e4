package fakeruntime

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func version(ctx context.Context, c client) codes.Code {
	_, err := c.Version(ctx, &runtimeapi.VersionRequest{})
	return status.Code(err)
}

func TestFaultErrIsPassedAsItIs(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	want := must[*status.Status](t)(status.New(codes.ResourceExhausted, "full").WithDetails(&runtimeapi.FilesystemIdentifier{Mountpoint: "/full"}))
	r.Inject("Version", Fault{Err: want.Err(), Times: 2})
	r.Inject("Version", Fault{Err: errors.New("plain"), Times: 1})
	for range 2 {
		_, err := c.Version(t.Context(), &runtimeapi.VersionRequest{})
		detail, ok := status.Convert(err).Details()[0].(*runtimeapi.FilesystemIdentifier)
		if !ok || detail.GetMountpoint() != "/full" {
			t.Errorf("the error's details are %v", status.Convert(err).Details())
		}
		wantError(t, err, "ResourceExhausted: full")
	}
	_, err := c.Version(t.Context(), &runtimeapi.VersionRequest{})
	wantError(t, err, "Unknown: plain")
	if got := version(t.Context(), c); got != codes.OK {
		t.Errorf("used up faults still give %v", got)
	}
}

func TestFaultMatchAndAllMethods(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Inject("StopContainer", Fault{Err: status.Error(codes.Aborted, "this one"), Match: func(call Call) bool {
		req, ok := call.Request.(*runtimeapi.StopContainerRequest)
		return ok && req.GetContainerId() == "x"
	}})
	stop := func(id string) codes.Code {
		_, err := c.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
		return status.Code(err)
	}
	if stop("x") != codes.Aborted || stop("y") != codes.OK {
		t.Error("Match does not pick the calls")
	}
	r.Inject(AllMethods, Fault{Err: status.Error(codes.Unavailable, "all")})
	if stop("x") != codes.Aborted || stop("y") != codes.Unavailable || version(t.Context(), c) != codes.Unavailable {
		t.Error("a fault of all methods is not after those of one")
	}
	r.ClearFaults()
	if stop("x") != codes.OK || version(t.Context(), c) != codes.OK {
		t.Error("ClearFaults left some")
	}
}

func TestFaultHangs(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Inject("Version", Fault{Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(bounded(t))
	done := make(chan codes.Code)
	go func() { done <- version(ctx, c) }()
	must[[]Call](t)(r.WaitCalls(bounded(t), "Version", 1))
	cancel()
	if got := <-done; got != codes.Canceled {
		t.Errorf("a call that hangs until its caller gives up ends with %v", got)
	}
}

func TestFaultDelays(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Inject("Version", Fault{Delay: 50 * time.Millisecond, Times: 1})
	begin := time.Now()
	if got := version(bounded(t), c); got != codes.OK || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("a delayed call gives %v after %v", got, time.Since(begin))
	}
}

func TestFaultWaitsForAChannel(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	gate := make(chan struct{})
	r.Inject("Version", Fault{Until: gate})
	ctx, done := bounded(t), make(chan codes.Code)
	go func() { done <- version(ctx, c) }()
	must[[]Call](t)(r.WaitCalls(bounded(t), "Version", 1))
	select {
	case got := <-done:
		t.Errorf("a held call gave %v", got)
	default:
	}
	close(gate)
	if got := <-done; got != codes.OK {
		t.Errorf("a call that was let go gives %v", got)
	}
}

func TestFaultDropsTheConnection(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	other := dial(t, r)
	stream := subscribe(bounded(t), t, c)
	must[struct{}](t)(struct{}{}, r.WaitSubscribers(bounded(t), 1))
	r.Inject("Version", Fault{Drop: true, Times: 1})
	if got := version(t.Context(), c); got != codes.Unavailable {
		t.Errorf("a dropped call gives %v", got)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the other calls of a dropped connection end with %v", err)
	}
	if got := version(t.Context(), other); got != codes.OK {
		t.Errorf("another connection gives %v", got)
	}
}

func TestFaultAfterEffect(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Inject("RunPodSandbox", Fault{Err: status.Error(codes.Unavailable, "lost"), AfterEffect: true, Times: 1})
	wantError(t, run(c, podConfig("a"), "")(t.Context()), "Unavailable: lost")
	if len(r.Sandboxes()) != 1 {
		t.Error("the work was not done before the fault")
	}
	r.Inject("RunPodSandbox", Fault{Drop: true, Times: 1})
	if got := status.Code(run(c, podConfig("b"), "")(t.Context())); got != codes.Unavailable {
		t.Errorf("a dropped call gives %v", got)
	}
	if len(r.Sandboxes()) != 1 {
		t.Error("the work was done in spite of the fault before it")
	}
}

func TestFaultInAStream(t *testing.T) {
	t.Parallel()
	r, c := lists(t)
	r.Inject("StreamContainers", Fault{Err: status.Error(codes.Internal, "half"), AfterFrames: 1})
	stream, err := c.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || len(first.GetContainers()) != 2 {
		t.Errorf("the first message is %v, %v", first, err)
	}
	_, err = stream.Recv()
	wantError(t, err, "Internal: half")
	r.Inject("GetContainerEvents", Fault{Drop: true, AfterFrames: 2, Times: 1})
	events := subscribe(bounded(t), t, c)
	for range 3 {
		r.Emit(&runtimeapi.ContainerEventResponse{ContainerId: "x"})
	}
	// A reset may overtake what was sent before it, so that not all of the two must arrive.
	for range 3 {
		if _, err = events.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the dropped event stream ends with %v", err)
	}
}

func TestStopEndsHungCalls(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Inject(AllMethods, Fault{Hang: true})
	ctx, done := bounded(t), make(chan codes.Code)
	go func() { done <- version(ctx, c) }()
	must[[]Call](t)(r.WaitCalls(bounded(t), "Version", 1))
	r.Stop()
	if got := <-done; got != codes.Unavailable {
		t.Errorf("a hung call ends with %v when its runtime stops", got)
	}
}
