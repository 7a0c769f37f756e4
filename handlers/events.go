package handlers

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

const (
	firstEventRetry   = 100 * time.Millisecond
	longestEventRetry = 5 * time.Second
	// eventQueue is how many events may wait for the caller before their
	// backends' streams are held up by flow control.
	eventQueue = 64
)

// getContainerEvents answers with the events of all backends. Each has its own
// upstream for each caller (containerd 1.7 would split the events of a shared
// one). A lost upstream is subscribed anew, and what changed meanwhile is sent
// from the difference of the lists. The caller's stream ends with an error when
// no backend is left that has events at all.
func (r *Runtime) getContainerEvents(ctx context.Context, call *rawcri.Call) error {
	if r.Backends.Single() {
		return r.toDefault(ctx, call)
	}
	if err := call.Request.Decode(&runtimeapi.GetEventsRequest{}); err != nil {
		return malformed(call, err) // Or every subscription would fail, for ever.
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan *rawcri.Frame, eventQueue)
	var wg sync.WaitGroup
	errs := make([]error, len(r.Backends.All()))
	for i, b := range r.Backends.All() {
		w := &eventWatch{front: r, call: call, b: b, out: events}
		wg.Go(func() { errs[i] = w.run(ctx) })
	}
	go func() { // Ends with the watches, and close(events) is waited for below.
		wg.Wait()
		close(events)
	}()
	var err error
	for f := range events {
		if err != nil {
			f.Free() // Only draining.
		} else if err = call.Send(f); err != nil {
			cancel()
		}
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return errs[0]
}

// eventWatch follows one backend's events for one caller.
type eventWatch struct {
	front *Runtime
	call  *rawcri.Call
	b     *backend.Backend
	out   chan<- *rawcri.Frame
	seen  map[string]seenEvent // What the caller was told; nil before the first list.
}

// seenEvent is the last that was told of one container or sandbox.
type seenEvent struct {
	kind    runtimeapi.ContainerEventType
	sandbox string
}

// run ends with ctx, or when the backend says that it has no events.
func (w *eventWatch) run(ctx context.Context) error {
	retry := firstEventRetry
	for {
		began := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil || status.Code(err) == codes.Unimplemented {
			return err
		}
		if w.seen == nil {
			w.seen = map[string]seenEvent{} // Subscribed, and told of nothing: next time, of all.
		}
		if time.Since(began) > longestEventRetry {
			retry = firstEventRetry
		}
		w.front.Log.WithFields(logrus.Fields{"backend": w.b.Name, "retry": retry}).WithError(err).Info("event stream lost")
		pause(ctx, retry)
		retry = min(2*retry, longestEventRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// follow subscribes and passes on until the stream breaks.
func (w *eventWatch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, err := w.front.Backends.Open(ctx, w.call.Method, w.b, w.call.Request)
	if err != nil {
		return err
	}
	// First the stream, then the lists: what happens in between comes twice, which
	// the kubelet bears, rather than not at all.
	if err := w.catchUp(ctx); err != nil {
		return err
	}
	for {
		f, err := up.Next()
		if err != nil {
			return err
		}
		w.learn(f)
		if err := w.send(ctx, f); err != nil {
			return err
		}
	}
}

func (w *eventWatch) send(ctx context.Context, f *rawcri.Frame) error {
	select {
	case w.out <- f:
		return nil
	case <-ctx.Done():
		f.Free()
		return ctx.Err()
	}
}

// learn keeps what an event says; one that cannot be read passes all the same.
func (w *eventWatch) learn(f *rawcri.Frame) {
	var e runtimeapi.ContainerEventResponse
	if f.Decode(&e) != nil {
		return
	}
	w.note(e.GetContainerId(), seenEvent{e.GetContainerEventType(), e.GetPodSandboxStatus().GetId()})
}

func (w *eventWatch) note(id string, e seenEvent) {
	if e.kind == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
		delete(w.seen, id)
		return
	}
	w.seen[id] = e
}
