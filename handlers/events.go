package handlers

import (
	"context"
	"sync"
	"sync/atomic"
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
		return r.passEvents(ctx, call)
	}
	if err := call.Request.Decode(&runtimeapi.GetEventsRequest{}); err != nil {
		return malformed(call, err) // Or every subscription would fail, for ever.
	}
	return r.mergeEvents(ctx, call)
}

// passEvents passes on the only backend's events. When a reload has made it
// one of several, or another one, the caller is to subscribe again.
func (r *Runtime) passEvents(ctx context.Context, call *rawcri.Call) error {
	limited, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	changed := false
	wg.Go(func() {
		for f := r; ; f = f.next {
			select {
			case <-limited.Done():
				return
			case <-f.replaced:
			}
			if !f.next.Backends.Single() || len(r.Backends.Missing(f.next.Backends)) > 0 {
				changed = true
				cancel()
				return
			}
		}
	})
	err := r.toDefault(limited, call)
	cancel()
	wg.Wait()
	if changed && ctx.Err() == nil {
		return status.Error(codes.Unavailable, "cri-proxy was told of other backends: subscribe again")
	}
	return err
}

// mergeEvents answers with the events of all backends, also of those that later
// configurations add.
func (r *Runtime) mergeEvents(ctx context.Context, call *rawcri.Call) error {
	ctx, cancel := context.WithCancel(ctx)
	m := &eventMerge{call: call, out: make(chan *rawcri.Frame, eventQueue), ended: make(chan *eventWatch), running: map[*eventWatch]context.CancelFunc{}}
	defer m.finish(cancel)
	m.follow(ctx, r)
	for {
		select {
		case f := <-m.out:
			if err := call.Send(f); err != nil {
				return err
			}
		case w := <-m.ended:
			if m.without(w) {
				return m.rest(ctx)
			}
		case <-m.front.Load().replaced:
			m.follow(ctx, m.front.Load().next)
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// eventMerge is one caller's stream of all backends' events.
type eventMerge struct {
	call    *rawcri.Call
	out     chan *rawcri.Frame
	ended   chan *eventWatch
	watches sync.WaitGroup
	front   atomic.Pointer[Runtime] // The newest.
	running map[*eventWatch]context.CancelFunc
	err     error // Why the default backend, or else the last one, has no events.
}

// follow watches the backends that a front has, and no others. Of a backend that
// was added the caller is told all.
func (m *eventMerge) follow(ctx context.Context, front *Runtime) {
	before := m.front.Swap(front)
	added := front.Backends.All()
	if before != nil {
		added = front.Backends.Missing(before.Backends)
		for _, gone := range before.Backends.Missing(front.Backends) {
			m.stop(gone)
		}
	}
	for _, b := range added {
		w := &eventWatch{merge: m, call: m.call, b: b}
		if before != nil {
			w.seen = map[string]seenEvent{}
		}
		watched, stop := context.WithCancel(ctx)
		m.running[w] = stop
		m.watches.Go(func() {
			w.err = w.run(watched)
			select {
			case m.ended <- w:
			case <-ctx.Done():
			}
		})
	}
}

func (m *eventMerge) stop(gone *backend.Backend) {
	for w, stop := range m.running {
		if w.b.Name == gone.Name {
			stop()
			delete(m.running, w)
		}
	}
}

// without takes a watch out that has ended, and reports whether it was the last.
func (m *eventMerge) without(w *eventWatch) (last bool) {
	stop, ok := m.running[w]
	if !ok {
		return false // A reload has ended it.
	}
	stop()
	delete(m.running, w)
	if m.err == nil || w.b.Name == m.front.Load().Backends.Default().Name {
		m.err = w.err
	}
	return len(m.running) == 0
}

// rest sends what came before the last watch ended, and returns why it did.
func (m *eventMerge) rest(ctx context.Context) error {
	for {
		select {
		case f := <-m.out:
			if err := m.call.Send(f); err != nil {
				return err
			}
		default:
			if ctx.Err() != nil {
				return status.FromContextError(ctx.Err()).Err()
			}
			return m.err
		}
	}
}

// finish ends the watches and frees what nobody gets any more.
func (m *eventMerge) finish(cancel context.CancelFunc) {
	cancel()
	m.watches.Wait()
	for {
		select {
		case f := <-m.out:
			f.Free()
		default:
			return
		}
	}
}

// eventWatch follows one backend's events for one caller.
type eventWatch struct {
	merge *eventMerge
	call  *rawcri.Call
	b     *backend.Backend
	seen  map[string]seenEvent // What the caller was told; nil before the first list.
	err   error                // Why it ended.
}

func (w *eventWatch) front() *Runtime { return w.merge.front.Load() }

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
		w.front().Log.WithFields(logrus.Fields{"backend": w.b.Name, "retry": retry}).WithError(err).Info("event stream lost")
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
	up, err := w.front().Backends.Open(ctx, w.call.Method, w.b, w.call.Request)
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
	case w.merge.out <- f:
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
