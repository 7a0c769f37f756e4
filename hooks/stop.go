package hooks

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// shortStop is the least that a runtime gets for a stop that asked for as much,
// the most that a sandbox or remove call grants, and the longest stop before
// which the kubelet may have had no time for an HTTP hook.
const shortStop = 2 * time.Second

// stop is the one stop of a container. Its owner is a task; others join it.
type stop struct {
	Container

	mu       sync.Mutex
	accepted time.Time
	asked    time.Duration // The shortest grace period that anybody asked for.
	end      time.Duration // The deadline, on the boot clock. It only moves to earlier times.
	moved    chan struct{} // Closed and replaced when end moves.
	round    *round
	isOwn    bool // Somebody asked for this very container: without hooks the runtime is to stop it as asked.

	stored  bool // The last process accepted it; only the owner uses it, after recall.
	chosen  bool // Its hooks are in the journal, too.
	records []journal.Record
}

// round is one attempt to bring the stop to its end, and what callers wait for.
type round struct {
	done chan struct{}
	err  error
}

func newRound() *round { return &round{done: make(chan struct{})} }

// shorten moves the deadline to an earlier time, and reports whether that is one.
func (s *stop) shorten(now, grace time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now+grace >= s.end && grace >= s.asked {
		return false
	}
	s.asked, s.end = min(s.asked, grace), min(s.end, now+grace)
	close(s.moved)
	s.moved = make(chan struct{})
	return true
}

// due is when hooks end, and what tells that it has moved.
func (s *stop) due() (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end, s.moved
}

// killDue is the same for the runtime, which got the container at began.
func (s *stop) killDue(began time.Duration) (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.end, began+min(shortStop, s.asked)), s.moved
}

// grace is the shortest that was asked for.
func (s *stop) grace() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// isAtOnce reports whether somebody wants no grace at all.
func (s *stop) isAtOnce() bool { return s.grace() <= 0 }

func (s *stop) record(c Clock) journal.Stop {
	s.mu.Lock()
	defer s.mu.Unlock()
	return journal.Stop{Accepted: s.accepted, Asked: s.asked, Deadline: c.deadline(s.end)}
}

// conclude ends the round and begins the next.
func (s *stop) conclude(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round.err = err
	close(s.round.done)
	s.round = newRound()
}

// join returns the round as it is when a caller joins.
func (s *stop) join(isOwn bool) *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isOwn = s.isOwn || isOwn
	return s.round
}

func (r *round) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// Stop stops a container within a grace period, its PreStop hooks included, and
// returns when it has ended. It joins a stop that is under way and shortens its
// deadline if timeout says so. The end of ctx ends the waiting only. The error
// is the runtime's.
func (e *Engine) Stop(ctx context.Context, c Container, timeout time.Duration) error {
	return e.stop(ctx, c, max(0, timeout), true)
}

func (e *Engine) stop(ctx context.Context, c Container, grace time.Duration, isOwn bool) error {
	s, r, fresh := e.claim(c, grace, isOwn)
	if fresh {
		// Others may have joined: that this caller goes is not the end of the stop.
		if err := e.spawn(context.WithoutCancel(ctx), func(ctx context.Context) { e.own(ctx, s) }); err != nil {
			e.release(s, err)
			return err
		}
		return r.wait(ctx)
	}
	if s.shorten(e.Clock.Boot(), grace) {
		shorter := s.record(e.Clock)
		if err := e.Journal.Update(func(tx *journal.Tx) error { return tx.Shorten(c.ID, shorter) }); err != nil {
			e.Log.WithError(err).WithField("container", c.ID).Error("the shorter deadline of a stop cannot be recorded: it holds until a crash only")
		}
	}
	return r.wait(ctx)
}

// claim returns the container's stop, a fresh one if there was none.
func (e *Engine) claim(c Container, grace time.Duration, isOwn bool) (s *stop, r *round, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s = e.stops[c.ID]; s == nil {
		fresh = true
		s = &stop{
			Container: c, accepted: time.Now(), asked: grace, end: e.Clock.Boot() + grace,
			moved: make(chan struct{}), round: newRound(), isOwn: isOwn,
		}
		e.stops[c.ID] = s
	}
	return s, s.join(isOwn), fresh
}

// leave ends a stop without the runtime, unless somebody asked for this very
// container.
func (e *Engine) leave(s *stop) bool {
	e.mu.Lock()
	s.mu.Lock()
	isOwn := s.isOwn
	s.mu.Unlock()
	if !isOwn {
		delete(e.stops, s.ID) // Nobody joins it any more.
	}
	e.mu.Unlock()
	if !isOwn {
		s.conclude(nil)
	}
	return !isOwn
}

// release ends a stop for all who wait for it.
func (e *Engine) release(s *stop, err error) {
	e.mu.Lock()
	delete(e.stops, s.ID)
	e.mu.Unlock()
	s.conclude(err)
}

// EndContainer is to be called before a RemoveContainer is passed on: if the
// container runs, it gets its hooks and two seconds at most. The error means that
// nobody waited for them: the end of ctx, of this program, or a backend that is
// away. What a runtime has against the stop is no error: the call that follows
// ends the container in its own way.
func (e *Engine) EndContainer(ctx context.Context, c Container) error {
	err := e.stop(ctx, c, shortStop, false)
	if err == nil || isAway(err) {
		return err
	}
	e.Log.WithError(err).WithField("container", c.ID).Warn("the runtime does not stop a container that is about to be removed")
	return nil
}
