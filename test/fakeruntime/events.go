package fakeruntime

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// events hands container events to all subscribers. As in containerd, what happens while there is none waits for the
// next one. Queues have no bound, so that no call waits for a slow subscriber.
type events struct {
	mu          sync.Mutex
	shared      bool // each event goes to one subscriber, in turn
	turn        int
	subscribers []*subscriber
	pending     []*runtimeapi.ContainerEventResponse
	changed     chan struct{} // closed and replaced when a subscriber comes or goes
}

// subscriber is one open stream; its queue is guarded by events.mu.
type subscriber struct {
	queue []*runtimeapi.ContainerEventResponse
	wake  chan struct{}
}

func newEvents() *events { return &events{changed: make(chan struct{})} }

func (e *events) publish(event *runtimeapi.ContainerEventResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.subscribers) == 0 {
		e.pending = append(e.pending, event)
		return
	}
	to := e.subscribers
	if e.shared {
		e.turn++
		to = to[e.turn%len(to):][:1]
	}
	for _, s := range to {
		s.queue = append(s.queue, event)
		s.signal()
	}
}

// signal wakes the stream; one waiting signal is enough.
func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (e *events) subscribe(shared bool) *subscriber {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shared = shared
	s := &subscriber{queue: e.pending, wake: make(chan struct{}, 1)}
	e.pending = nil
	s.signal()
	e.subscribers = append(e.subscribers, s)
	e.announce()
	return s
}

func (e *events) unsubscribe(s *subscriber) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subscribers = slices.DeleteFunc(e.subscribers, func(other *subscriber) bool { return other == s })
	e.announce()
}

func (e *events) announce() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *events) drain(s *subscriber) []*runtimeapi.ContainerEventResponse {
	e.mu.Lock()
	defer e.mu.Unlock()
	queue := s.queue
	s.queue = nil
	return queue
}

func (e *events) count() (int, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subscribers), e.changed
}

func (e *events) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = nil
}

// GetContainerEvents sends events until the caller gives up.
func (s *service) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	sub := s.events.subscribe(s.options().SharedEvents)
	defer s.events.unsubscribe(sub)
	for {
		if err := await(out.Context(), sub.wake); err != nil {
			return err
		}
		for _, event := range s.events.drain(sub) {
			if err := out.Send(event); err != nil {
				return err
			}
		}
	}
}

// Emit sends an event to the subscribers, or to the next one if there is none. The event is copied.
func (r *Runtime) Emit(event *runtimeapi.ContainerEventResponse) {
	r.events.publish(proto.CloneOf(event))
}

// WaitSubscribers waits until exactly n streams of GetContainerEvents are open.
func (r *Runtime) WaitSubscribers(ctx context.Context, n int) error {
	for {
		have, changed := r.events.count()
		if have == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d event subscribers, have %d: %w", n, have, ctx.Err())
		}
	}
}
