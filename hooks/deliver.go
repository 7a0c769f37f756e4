package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// refusedFor is how long a hook without a time-out is tried where nobody answers.
// Its only other bound is the grace period: a PreStop would spend all of it on a
// server that is gone already, and leave nothing to the container itself.
const refusedFor = 5 * time.Second

// Why a delivery is ended from outside. Any other end of its context is that of
// the process, and leaves it to the next one.
var (
	errGraceOver = errors.New("the grace period is over")
	errStopping  = errors.New("the container is being stopped")
	errDropped   = errors.New("an operator dropped it")
	errExited    = errors.New("the container has ended")
)

// deliver tries a hook until it is delivered, has failed for good or lost its
// reason, and returns the finished record; an unfinished one means that the
// process ends. Each attempt is on disk before it begins, and the outcome when
// deliver returns, but for a failure that kills: see condemn.
func (e *Engine) deliver(ctx context.Context, client runtimeapi.RuntimeServiceClient, r journal.Record) (done journal.Record) {
	ctx, end := e.span(ctx, r)
	defer func() {
		var err error
		if done.State != journal.Delivered {
			err = errors.New(done.Error)
		}
		end(err, "result", string(done.State))
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.setDelivery(r.ID, cancel)
	defer e.setDelivery(r.ID, nil)

	began, pause := time.Now(), r.Hook.Backoff
	for left := attemptsLeft(r); ; left-- {
		if ctx.Err() != nil {
			break
		}
		r.State, r.Attempts = journal.Running, r.Attempts+1
		if done, ok := e.begin(r); !ok {
			return done
		}
		err := e.attempt(ctx, client, r)
		if err == nil {
			r.State, r.Error = journal.Delivered, ""
			return e.finish(r, time.Since(began))
		}
		r.Error = err.Error()
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errExited) || !isRunning(ctx, client, r.Container) || left <= 1 && mayHaveEnded(err) && ends(ctx, client, r.Container) {
			r.State, r.Error = journal.Moot, errExited.Error()
			return e.finish(r, time.Since(began))
		}
		if left <= 1 {
			r.State = journal.Failed
			if r.Hook.Kill {
				return r // It is recorded together with the stop that it calls for.
			}
			return e.finish(r, time.Since(began))
		}
		wait(ctx, pause)
		pause = min(2*pause, configs.MaxBackoff)
	}
	return e.cutShort(ctx, r, time.Since(began))
}

// How long, and how often, the end of a container is waited for that may have
// taken a command with it: runtimes tell of the command first, and late of the
// container where the machine is busy.
const endTime, endLook = time.Second, 50 * time.Millisecond

// ends reports whether the container has ended, or does so within a moment.
func ends(ctx context.Context, client runtimeapi.RuntimeServiceClient, container string) bool {
	for end := time.Now().Add(endTime); time.Now().Before(end) && ctx.Err() == nil; {
		if !isRunning(ctx, client, container) {
			return ctx.Err() == nil
		}
		wait(ctx, endLook)
	}
	return false
}

// attemptsLeft counts out those that are known to have failed. One that the end
// of the last process cut off is not among them.
func attemptsLeft(r journal.Record) int {
	if r.State != journal.Running {
		return r.Hook.Attempts
	}
	return max(1, r.Hook.Attempts-max(0, r.Attempts-1))
}

// cutShort finishes a record whose delivery was ended from outside.
func (e *Engine) cutShort(ctx context.Context, r journal.Record, took time.Duration) journal.Record {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errGraceOver):
		r.State = journal.Failed
		if r.Error == "" {
			r.Error = cause.Error()
		}
	case errors.Is(cause, errStopping), errors.Is(cause, errDropped):
		r.State, r.Error = journal.Moot, cause.Error()
	default:
		return r
	}
	return e.finish(r, took)
}

// minBackoff keeps a record without a back-off from being tried without a pause.
const minBackoff = 10 * time.Millisecond

// attempt does it once, within its time-out.
func (e *Engine) attempt(ctx context.Context, client runtimeapi.RuntimeServiceClient, r journal.Record) error {
	if r.Hook.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Hook.Timeout, fmt.Errorf("it took longer than %s", r.Hook.Timeout))
		defer cancel()
	}
	do := e.sleep
	switch {
	case r.Hook.Exec != nil:
		do = e.exec
	case r.Hook.HTTPGet != nil:
		do = e.httpGet
	}
	began := time.Now()
	var last error
	for {
		err := do(ctx, client, r)
		if err == nil {
			return nil // Even if ctx has ended meanwhile: it is delivered.
		}
		if isOver(ctx, err) {
			return ended(ctx, last)
		}
		if !isTransient(err) || r.Hook.Timeout == 0 && time.Since(began) >= refusedFor {
			return err
		}
		last = err // Nobody listens yet, most of all: this does not count.
		if !isRunning(ctx, client, r.Container) {
			return errExited
		}
		wait(ctx, max(r.Hook.Backoff, minBackoff))
	}
}

// isOver reports whether ctx has ended. A runtime keeps the same deadline, and its
// answer may be a moment earlier than our own timer.
func isOver(ctx context.Context, err error) bool {
	if deadline, ok := ctx.Deadline(); ok && status.Code(err) == codes.DeadlineExceeded && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// ended says why ctx has ended, in one line, and what went wrong before.
func ended(ctx context.Context, last error) error {
	if last == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; before: %w", context.Cause(ctx), last)
}

// wait waits, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (e *Engine) setDelivery(id string, cancel context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cancel == nil {
		delete(e.deliveries, id)
		return
	}
	e.deliveries[id] = cancel
}

// finish makes the outcome of a record known: on disk, in the log, in metrics
// and, when it failed, as an Event.
func (e *Engine) finish(r journal.Record, took time.Duration) journal.Record {
	r.Finished = time.Now()
	e.save(r)
	e.report(r, took)
	return r
}

// settle finishes records that are not delivered at all, in one commit.
func (e *Engine) settle(records []journal.Record, state journal.State, reason string) {
	var open []journal.Record
	for _, r := range records {
		if !r.State.Finished() {
			r.State, r.Error, r.Finished = state, reason, time.Now()
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		return
	}
	var written []journal.Record
	err := e.Journal.Update(func(tx *journal.Tx) error {
		written = nil
		for _, r := range open {
			if now, err := tx.Get(r.ID); err == nil && now.State.Finished() {
				continue // An operator has dropped it.
			}
			written = append(written, r)
		}
		return putAll(tx, written)
	})
	if err != nil {
		written = open
	}
	e.keep(err, written...)
	for _, r := range written {
		e.report(r, 0)
	}
}

func (e *Engine) report(r journal.Record, took time.Duration) {
	e.metrics.delivered(r, took)
	log := e.Log.WithFields(logrus.Fields{
		"handler": r.Handler, "namespace": r.Pod.Namespace, "pod": r.Pod.Name, "container": r.Container, "name": r.ContainerName,
		"event": string(r.Event), "hook": r.Hook.Name, "source": string(r.Hook.Source), "delivery": r.ID,
		"attempts": r.Attempts, "result": string(r.State), "took": took.String(),
	})
	if r.Error != "" {
		log = log.WithField("reason", r.Error)
	}
	if r.State != journal.Failed {
		log.Info("hook " + string(r.State))
		return
	}
	log.Warn("hook failed")
	e.Warn(r.Pod, "Failed"+string(r.Event)+"Hook",
		fmt.Sprintf("%s hook %q of container %q failed: %s", r.Event, r.Hook.Name, r.ContainerName, r.Error))
}

// save writes records in one commit. What the disk does not take is kept and
// tried again, and the work goes on: a stop must not wait for a disk, and the
// record of a PostStart stands on it already.
func (e *Engine) save(records ...journal.Record) {
	e.keep(e.Journal.Update(func(tx *journal.Tx) error { return putAll(tx, records) }), records...)
}

// keep remembers records for which a commit gave an error.
func (e *Engine) keep(err error, records ...journal.Record) {
	e.mu.Lock()
	for _, r := range records {
		if err == nil {
			delete(e.unsaved, r.ID)
		} else {
			e.unsaved[r.ID] = r
		}
	}
	e.mu.Unlock()
	if err != nil {
		e.Log.WithError(err).WithField("records", len(records)).Error("the state of a hook cannot be recorded: " +
			"it is tried again, and a crash before that repeats the hook")
	}
}

// begin records an attempt, unless an operator has dropped the hook meanwhile.
func (e *Engine) begin(r journal.Record) (dropped journal.Record, ok bool) {
	err := e.Journal.Update(func(tx *journal.Tx) error {
		old, err := tx.Get(r.ID)
		if err == nil && old.State == journal.Moot {
			dropped = old
			return errDropped
		}
		return tx.Put(r)
	})
	if errors.Is(err, errDropped) {
		return dropped, false
	}
	e.keep(err, r)
	return r, true
}

func putAll(tx *journal.Tx, records []journal.Record) error {
	for _, r := range records {
		if err := tx.Put(r); err != nil {
			return err
		}
	}
	return nil
}

// flush tries again what the disk did not take. One by one: a record that was
// dropped or finished meanwhile must not keep the others.
func (e *Engine) flush(ctx context.Context) {
	e.mu.Lock()
	waiting := make([]journal.Record, 0, len(e.unsaved))
	for _, r := range e.unsaved {
		waiting = append(waiting, r)
	}
	e.mu.Unlock()
	for _, r := range waiting {
		if ctx.Err() != nil {
			return
		}
		err := e.Journal.Update(func(tx *journal.Tx) error {
			if old, err := tx.Get(r.ID); err == nil && !old.State.MayBecome(r.State) {
				return nil
			}
			return tx.Put(r)
		})
		if err != nil {
			return // The next time.
		}
		e.mu.Lock()
		if kept, ok := e.unsaved[r.ID]; ok && kept.State == r.State && kept.Attempts == r.Attempts {
			delete(e.unsaved, r.ID)
		}
		e.mu.Unlock()
	}
}
