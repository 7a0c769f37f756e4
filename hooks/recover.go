package hooks

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// leftover is what recall found. The stops and launches are those that Run has
// to begin: others, which calls began before Run, are begun by those calls.
type leftover struct {
	stops    []*stop
	launches []*launch

	records    []journal.Record // No stop or launch owns them.
	containers []journal.Container
}

// recall reads what the last process has left behind, so that calls can join it.
func (e *Engine) recall() error {
	containers, err := e.Journal.Containers()
	if err != nil {
		return fmt.Errorf("read the containers of the hook journal: %w", err)
	}
	open, err := e.Journal.Unfinished()
	if err != nil {
		return fmt.Errorf("read the hook journal: %w", err)
	}
	for _, c := range containers {
		if c.Stop == nil {
			e.old.containers = append(e.old.containers, c)
			continue
		}
		s := &stop{
			Container: Container{ID: c.ID, Sandbox: c.Sandbox, Handler: c.Handler},
			accepted:  c.Stop.Accepted, asked: c.Stop.Asked, end: e.Clock.at(c.Stop.Deadline),
			moved: make(chan struct{}), round: newRound(), isOwn: true, stored: true, chosen: c.Stop.Chosen,
		}
		e.stops[c.ID] = s
		e.old.stops = append(e.old.stops, s)
	}
	for _, r := range open {
		e.recallRecord(r)
	}
	return nil
}

// recallRecord gives a record to the task that will finish it.
func (e *Engine) recallRecord(r journal.Record) {
	if isStopped := e.stops[r.Container] != nil; isStopped != (r.Event == journal.PreStop) {
		e.old.records = append(e.old.records, r)
		return
	}
	if r.Event == journal.PreStop {
		s := e.stops[r.Container]
		s.records = append(s.records, r)
		return
	}
	l, ok := e.launches[r.Container]
	if !ok {
		l = newLaunch(Container{ID: r.Container, Sandbox: r.Sandbox, Handler: r.Handler}, nil)
		e.launches[r.Container] = l
		e.old.launches = append(e.old.launches, l)
	}
	l.records = append(l.records, r)
}

// leftovers are the tasks for what recall has found.
func (e *Engine) leftovers() []func(context.Context) {
	tasks := []func(context.Context){e.sweep}
	for _, s := range e.old.stops {
		tasks = append(tasks, func(ctx context.Context) { e.own(ctx, s) })
	}
	for _, l := range e.old.launches {
		tasks = append(tasks, func(ctx context.Context) { e.launch(ctx, l) })
	}
	return tasks
}

// sweep finishes records that belong to nothing any more, and forgets containers
// that are gone.
func (e *Engine) sweep(ctx context.Context) {
	e.settle(e.old.records, journal.Moot, "nothing is left of the stop or start that it belonged to")
	gone := map[string]bool{}
	for _, c := range e.old.containers {
		_, err := e.look(ctx, Container{ID: c.ID, Sandbox: c.Sandbox, Handler: c.Handler})
		gone[c.ID] = status.Code(err) == codes.NotFound
	}
	e.forget(func(container, _ string) bool { return gone[container] })
}

// openRecords are the hooks of a stop that the last process has accepted and not
// finished, as they stand on disk by now: an operator may have dropped some.
func (e *Engine) openRecords(s *stop) []journal.Record {
	var open []journal.Record
	for _, r := range s.records {
		now, err := e.Journal.Record(r.ID)
		switch {
		case errors.Is(err, journal.ErrNotFound):
			continue
		case err != nil:
			e.Log.WithError(err).WithField("delivery", r.ID).Error("a hook cannot be read; its stop goes on with what was known at the start")
			now = r
		}
		if !now.State.Finished() {
			open = append(open, now)
		}
	}
	return open
}
