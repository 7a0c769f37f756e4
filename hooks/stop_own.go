package hooks

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

const (
	// runtimeSlack is how much longer than asked a runtime may take, as the kubelet grants it.
	runtimeSlack = 2 * time.Minute
	// Between attempts to bring an accepted stop to its end.
	minStopPause, maxStopPause = 500 * time.Millisecond, 5 * time.Second
)

// own brings a stop to its end: hooks, then the runtime. It is the only place in
// this program that stops a container of a handler with hooks.
func (e *Engine) own(ctx context.Context, s *stop) {
	t, err := e.lookForStop(ctx, s)
	if ctx.Err() != nil {
		e.release(s, errShutdown)
		return
	}
	if err != nil && (t == nil || !s.stored && !s.isAtOnce() && isAway(err)) {
		e.release(s, err) // Nothing was accepted, and nothing can be done.
		return
	}
	e.endLaunch(ctx, s.ID, errStopping)
	if err == nil && t.running() {
		e.stopRunning(ctx, s, t)
		return
	}
	mayRun := err != nil && status.Code(err) != codes.NotFound
	if mayRun {
		e.Log.WithError(err).WithField("container", s.ID).Error("a container is stopped without its PreStop hooks: its runtime does not tell which it has")
		e.settle(e.openRecords(s), journal.Failed, "its runtime does not tell about the container: "+status.Convert(err).Message())
	} else if s.stored {
		e.settle(e.openRecords(s), journal.Moot, errExited.Error())
	}
	if !s.stored && e.leave(s) {
		return // The sandbox or remove call itself does the rest.
	}
	e.complete(ctx, s, t, nil, mayRun)
}

// lookForStop asks about the container, again and again if the stop was accepted
// by the last process: its runtime may be away still.
func (e *Engine) lookForStop(ctx context.Context, s *stop) (*target, error) {
	for pause := minStopPause; ; pause = min(2*pause, maxStopPause) {
		t, err := e.look(ctx, s.Container)
		if err == nil || !s.stored || t != nil && !isAway(err) || ctx.Err() != nil {
			return t, err
		}
		s.conclude(err)
		wait(ctx, pause)
	}
}

func isAway(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// stopRunning stops a container that runs.
func (e *Engine) stopRunning(ctx context.Context, s *stop, t *target) {
	records := e.preStops(s, t)
	switch {
	case len(records) == 0 && !s.stored && e.leave(s):
		return
	case len(records) > 0 && !s.isAtOnce():
		records = e.accept(s, t, records)
		records = e.runPreStops(ctx, s, t, records)
	}
	if ctx.Err() != nil {
		e.release(s, errShutdown)
		return
	}
	e.complete(ctx, s, t, records, true)
}

// preStops are the hooks of a stop: those of the last process, if it accepted it.
func (e *Engine) preStops(s *stop, t *target) []journal.Record {
	if s.chosen {
		return e.openRecords(s)
	}
	records, err := e.owed(t, journal.PreStop)
	if err == nil {
		var own []journal.Hook
		if own, err = e.ensured(t, s.grace()); err == nil {
			records = append(records, e.records(t, journal.PreStop, own)...)
		}
	}
	if err != nil {
		e.Log.WithError(err).WithField("container", s.ID).Error("a container is stopped without the PreStop hooks of its pod: they cannot be read")
		e.Warn(t.podRef(), "FailedPreStopHook", status.Convert(err).Message())
	}
	deadline := s.record(e.Clock).Deadline
	for i := range records {
		records[i].Position, records[i].Deadline = i, &deadline
	}
	return records
}

// accept puts a stop and its hooks on disk, in one commit. What stands there
// already stays as it is. Without a disk the stop goes on all the same.
func (e *Engine) accept(s *stop, t *target, records []journal.Record) []journal.Record {
	if s.chosen {
		return records
	}
	stored := make([]journal.Record, len(records))
	err := e.Journal.Update(func(tx *journal.Tx) error {
		c, err := t.known(tx)
		if err != nil {
			return err
		}
		accepted := s.record(e.Clock)
		accepted.Chosen = true
		c.Stop = &accepted
		for i, r := range records {
			stored[i] = r
			if old, err := tx.Get(r.ID); err == nil {
				stored[i] = old
			} else if err := tx.Put(r); err != nil {
				return err
			}
		}
		return tx.PutContainer(c)
	})
	if err != nil {
		e.Log.WithError(err).WithField("container", s.ID).Error("a stop cannot be recorded: its hooks run now, and are lost if cri-proxy crashes meanwhile")
		return records
	}
	return stored
}

// runPreStops delivers the hooks one after another until the deadline, wherever
// that moves, and returns their records.
func (e *Engine) runPreStops(ctx context.Context, s *stop, t *target, records []journal.Record) []journal.Record {
	hooks, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		if e.until(hooks, s.due) {
			cancel(errGraceOver)
		}
	})
	defer watch.Wait()
	defer cancel(nil)
	for i, r := range records {
		switch {
		case r.State.Finished():
			continue
		case hooks.Err() != nil, e.isOver(s):
			return records
		case i > 0 && !isRunning(hooks, t.client, s.ID):
			e.settle(records[i:], journal.Moot, errExited.Error())
			return records[:i]
		}
		records[i] = e.deliver(hooks, t.client, r)
	}
	return records
}

// isOver reports whether the hooks' time has ended. The watcher tells it too late
// to one that is about to begin.
func (e *Engine) isOver(s *stop) bool {
	at, _ := s.due()
	return at <= e.Clock.Boot()
}

// until waits for a moment on the boot clock, which may move; false if ctx ends first.
func (e *Engine) until(ctx context.Context, due func() (time.Duration, <-chan struct{})) bool {
	for {
		at, moved := due()
		left := at - e.Clock.Boot()
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-moved:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// complete has the runtime stop the container, until it has, and forgets the stop.
func (e *Engine) complete(ctx context.Context, s *stop, t *target, records []journal.Record, mayRun bool) {
	began := e.Clock.Boot()
	for pause := minStopPause; ; pause = min(2*pause, maxStopPause) {
		err := e.halt(ctx, s, t.client, began)
		if ctx.Err() != nil {
			e.release(s, errShutdown)
			return
		}
		if err == nil || !mayRun || !isRunning(ctx, t.client, s.ID) {
			e.conclude(s, records)
			e.release(s, err)
			return
		}
		e.Log.WithError(err).WithField("container", s.ID).Warn("the runtime did not stop a container; it is asked again")
		if !s.stored && len(records) == 0 {
			e.release(s, err) // Without hooks nothing was promised: the caller decides.
			return
		}
		s.conclude(err)
		wait(ctx, pause)
	}
}

// halt asks the runtime for the stop, and kills when the time is over: what is
// left is less than the whole seconds of the request, and it may become still less.
// The runtime has the container since began.
func (e *Engine) halt(ctx context.Context, s *stop, client runtimeapi.RuntimeServiceClient, began time.Duration) error {
	due := func() (time.Duration, <-chan struct{}) { return s.killDue(began) }
	at, _ := due()
	left := at - e.Clock.Boot()
	if left <= 0 {
		return e.stopContainer(ctx, client, s.ID, 0)
	}
	waiting, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		if e.until(waiting, due) {
			// Not cut off when the stop itself returns: it would arrive after what follows.
			if err := e.stopContainer(ctx, client, s.ID, 0); err != nil && waiting.Err() == nil {
				e.Log.WithError(err).WithField("container", s.ID).Warn("a container cannot be killed at the end of its grace period")
			}
		}
	})
	defer watch.Wait()
	defer cancel()
	return e.stopContainer(ctx, client, s.ID, left)
}

func (*Engine) stopContainer(ctx context.Context, client runtimeapi.RuntimeServiceClient, id string, left time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, left+runtimeSlack)
	defer cancel()
	_, err := client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds(left)})
	return err
}

// conclude forgets a stop whose container has ended, and says of the hooks that
// were not begun why.
func (e *Engine) conclude(s *stop, records []journal.Record) {
	isBegun := func(r journal.Record) bool { return r.State == journal.Running }
	reason := errGraceOver.Error()
	if s.isAtOnce() {
		reason = "the container was to be killed at once"
	}
	e.settle(slices.DeleteFunc(slices.Clone(records), isBegun), journal.Skipped, reason)
	e.settle(slices.DeleteFunc(records, func(r journal.Record) bool { return !isBegun(r) }), journal.Failed, reason)
	_, known, err := e.Journal.Container(s.ID)
	if err == nil && known {
		err = e.Journal.Update(func(tx *journal.Tx) error { return tx.Forget(s.ID) })
	}
	if err != nil {
		e.Log.WithError(err).WithField("container", s.ID).Warn("the end of a stop cannot be recorded: the next start looks after it")
	}
}
