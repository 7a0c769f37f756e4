package hooks

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// Retry delivers a hook again that has failed, under the same id. Its container
// must run, and must not be about to stop. NotFound or FailedPrecondition says
// why it cannot.
func (e *Engine) Retry(ctx context.Context, id string) error {
	r, err := e.record(id)
	if err != nil {
		return err
	}
	if r.State != journal.Failed || r.Event != journal.PostStart {
		return status.Errorf(codes.FailedPrecondition, "hook %s is a %s hook and %s: only a PostStart hook that has failed can be tried again", id, r.Event, r.State)
	}
	c := Container{ID: r.Container, Sandbox: r.Sandbox, Handler: r.Handler}
	client, err := e.Backend(ctx, c)
	if err != nil {
		return err
	}
	if !isRunning(ctx, client, c.ID) || e.isStopping(c.ID) {
		return status.Errorf(codes.FailedPrecondition, "hook %s: container %s does not run, or is being stopped", id, c.ID)
	}
	r.State, r.Error = journal.Pending, ""
	l, fresh := e.addLaunch(newLaunch(c, []journal.Record{r}))
	if !fresh {
		return status.Errorf(codes.FailedPrecondition, "hook %s: another hook of its container is being delivered; try again when it is done", id)
	}
	if err := e.Journal.Update(func(tx *journal.Tx) error { return tx.Put(r) }); err != nil {
		e.removeLaunch(l)
		return err
	}
	err = e.spawn(ctx, func(ctx context.Context) { e.launch(ctx, l) })
	if err != nil {
		e.removeLaunch(l) // The next process finds the record.
	}
	return err
}

// Drop removes a finished hook from the journal, and makes one that is not
// finished moot: it is not tried again. NotFound if there is none,
// FailedPrecondition if it is finished in this moment.
func (e *Engine) Drop(id string) error {
	r, err := e.record(id)
	if err != nil {
		return err
	}
	if r.State.Finished() {
		return e.Journal.Update(func(tx *journal.Tx) error { return tx.Drop(id) })
	}
	if e.cutOff(id) {
		return nil
	}
	r.State, r.Error, r.Finished = journal.Moot, errDropped.Error(), time.Now()
	if err := e.Journal.Update(func(tx *journal.Tx) error { return drop(tx, r) }); err != nil {
		return err
	}
	if !e.cutOff(id) { // Its delivery may have begun meanwhile, before that was written.
		e.report(r, 0)
	}
	return nil
}

// drop records that a hook is dropped, unless it was finished meanwhile.
func drop(tx *journal.Tx, r journal.Record) error {
	now, err := tx.Get(r.ID)
	if err != nil {
		return err
	}
	if now.State.Finished() {
		return status.Errorf(codes.FailedPrecondition, "hook %s is %s by now: drop it again to remove its record", r.ID, now.State)
	}
	return tx.Put(r)
}

// cutOff ends the delivery of a hook, whose task writes the rest; false if there is none.
func (e *Engine) cutOff(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	cancel := e.deliveries[id]
	if cancel == nil {
		return false
	}
	cancel(errDropped)
	return true
}

func (e *Engine) record(id string) (journal.Record, error) {
	r, err := e.Journal.Record(id)
	if err != nil {
		return r, fmt.Errorf("read the hook journal: %w", err)
	}
	return r, nil
}

func (e *Engine) isStopping(container string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stops[container] != nil
}
