package hooks

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// answerEarly is how long before its caller's deadline a start is answered.
const answerEarly = 5 * time.Second

// launch is the delivery of the PostStart hooks of one container. Its owner is a
// task; the callers that wait read what stands before a closed channel only.
type launch struct {
	Container

	records []journal.Record // The owner's alone.
	end     chan error       // What ends it from outside; has room for one.
	asked   chan struct{}    // A start was answered: look again. Has room for one.
	failed  chan struct{}    // Closed when a hook failed that kills the container; err is set.
	settled chan struct{}    // Closed when nobody needs to wait any more.
	settle  func()           // Closes settled, once.
	err     error
	over    chan struct{} // Closed when no hook of it runs any more.
}

func newLaunch(c Container, records []journal.Record) *launch {
	settled := make(chan struct{})
	return &launch{
		Container: c, records: records, end: make(chan error, 1), asked: make(chan struct{}, 1),
		failed: make(chan struct{}), over: make(chan struct{}), settled: settled, settle: sync.OnceFunc(func() { close(settled) }),
	}
}

// Start starts a container and delivers its PostStart hooks. The hooks are on
// disk before start, which makes the runtime's call and whose error is returned
// as it is, is called. The reply is held while hooks that are to be waited for
// are not finished, and at the longest until five seconds before the deadline of
// ctx; they go on after that, and after the end of ctx. An error that begins with
// FailedPostStartHook means that a hook failed and the container was, or is
// about to be, stopped for it.
func (e *Engine) Start(ctx context.Context, c Container, start func(context.Context) error) error {
	l, fresh, err := e.promise(ctx, c)
	if err != nil {
		return err
	}
	startErr := start(ctx)
	if l == nil {
		return startErr
	}
	poke(l.asked)
	if fresh {
		// An error may hide a container that runs; the task finds out. Should this
		// program be about to end, the next one does.
		background := context.WithoutCancel(ctx)
		if err := e.spawn(background, func(ctx context.Context) { e.launch(ctx, l) }); err != nil {
			e.removeLaunch(l)
			return startErr
		}
	}
	if startErr != nil {
		return startErr
	}
	return l.wait(ctx)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait waits for the hooks of a container that was started.
func (l *launch) wait(ctx context.Context) error {
	var early <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.NewTimer(time.Until(deadline) - answerEarly)
		defer timer.Stop()
		early = timer.C
	}
	select {
	case <-l.settled:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-early:
	}
	select {
	case <-l.failed:
		return l.err
	default:
		return nil // The container runs; an error would make the kubelet believe otherwise.
	}
}

// promise puts the hooks of a container that is about to be started on disk. No
// launch means that it has none.
func (e *Engine) promise(ctx context.Context, c Container) (l *launch, fresh bool, err error) {
	h := e.config(c.Handler)
	e.mu.Lock()
	l = e.launches[c.ID]
	e.mu.Unlock()
	if l != nil || len(h.PostStart) == 0 && !h.AllowPodHooks && !h.AllowOptOut {
		return l, false, nil
	}
	t, err := e.look(ctx, c)
	if status.Code(err) == codes.NotFound {
		return nil, false, nil // The runtime says it better.
	}
	if err != nil {
		return nil, false, err
	}
	records, err := e.owed(t, journal.PostStart)
	if err != nil {
		return nil, false, err
	}
	if records, err = e.acceptStart(t, records); err != nil {
		return nil, false, status.Errorf(codes.Internal, "container %q is not started: its hooks cannot be recorded: %v", c.ID, err)
	}
	if len(records) == 0 {
		return nil, false, nil
	}
	l, fresh = e.addLaunch(newLaunch(c, records))
	return l, fresh, nil
}

// acceptStart records what is owed, and the pod's annotations where the runtime
// has others. It returns the records as they stand on disk.
func (e *Engine) acceptStart(t *target, records []journal.Record) ([]journal.Record, error) {
	annotations, created := e.created(t.ID)
	keep := created && !maps.Equal(annotations, aboutHooks(t.pod.GetAnnotations()))
	if len(records) > 0 || keep {
		err := e.Journal.Update(func(tx *journal.Tx) error {
			if keep {
				if err := t.putAnnotations(tx, annotations); err != nil {
					return err
				}
			}
			for i, r := range records {
				if old, err := tx.Get(r.ID); err == nil {
					records[i] = old // Of a start that did not succeed.
				} else if err := tx.Put(r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.annotations, t.ID)
	return records, nil
}

func (e *Engine) addLaunch(l *launch) (kept *launch, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, ok := e.launches[l.ID]; ok {
		return other, false
	}
	e.launches[l.ID] = l
	return l, true
}

func (e *Engine) removeLaunch(l *launch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.launches[l.ID] == l {
		delete(e.launches, l.ID)
	}
}

// launchEndTime is how long a stop waits for a PostStart hook that it has ended:
// one that hangs nevertheless must not keep the container from being stopped.
const launchEndTime = time.Second

// endLaunch ends the delivery of a container's PostStart hooks, if there is one,
// so that they are not beside those of its stop.
func (e *Engine) endLaunch(ctx context.Context, container string, cause error) {
	e.mu.Lock()
	l := e.launches[container]
	e.mu.Unlock()
	if l == nil {
		return
	}
	select {
	case l.end <- cause:
	default:
	}
	timer := time.NewTimer(launchEndTime)
	defer timer.Stop()
	select {
	case <-l.over:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// launch delivers the hooks of a container once it runs.
func (e *Engine) launch(ctx context.Context, l *launch) {
	defer l.settle()
	t, failed := e.postStarts(ctx, l)
	e.removeLaunch(l)
	close(l.over)
	if failed == nil {
		return
	}
	select {
	case <-l.settled: // Nobody waits, and a caller that is slow to go must not learn more than others.
	default:
		l.err = status.Errorf(codes.Unknown, "FailedPostStartHook: hook %q of container %q: %s", failed.Hook.Name, failed.ContainerName, failed.Error)
		close(l.failed)
	}
	end := e.Clock.Boot() + t.grace()
	for ctx.Err() == nil {
		err := e.Stop(ctx, l.Container, max(0, end-e.Clock.Boot()))
		if err == nil {
			return
		}
		e.Log.WithError(err).WithField("container", l.ID).Error("a container whose PostStart hook failed is not stopped yet; it is tried again")
		l.settle()
		wait(ctx, maxStopPause)
	}
}

// condemn puts on disk, in one commit, that the first of the records failed, that
// those after it are moot, and that the container is to be stopped for it: a crash
// must not leave one running whose hook failed.
func (e *Engine) condemn(t *target, records []journal.Record, took time.Duration) {
	now := time.Now()
	records[0].Finished = now
	for i := range records[1:] {
		r := &records[1+i]
		r.State, r.Error, r.Finished = journal.Moot, "a hook before it failed, and the container is stopped", now
	}
	accepted := journal.Stop{Accepted: now, Asked: t.grace(), Deadline: e.Clock.deadline(e.Clock.Boot() + t.grace())}
	e.keep(e.Journal.Update(func(tx *journal.Tx) error {
		c, err := t.known(tx)
		if err != nil {
			return err
		}
		c.Stop = &accepted
		if err := tx.PutContainer(c); err != nil {
			return err
		}
		return putAll(tx, records)
	}), records...)
	e.report(records[0], took)
	for _, r := range records[1:] {
		e.report(r, 0)
	}
}

// postStarts returns the hook for which the container is to be killed, nil if
// there is none.
func (e *Engine) postStarts(ctx context.Context, l *launch) (*target, *journal.Record) {
	hooks, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case cause := <-l.end:
			cancel(cause)
		case <-hooks.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)

	l.settleEarly(0)
	t := e.awaitRunning(hooks, l)
	if hooks.Err() == nil && t == nil {
		e.settle(l.records, journal.Moot, "the container ended before its hooks, or never started")
		return nil, nil
	}
	for i, r := range l.records {
		began := time.Now()
		l.settleEarly(i)
		if hooks.Err() == nil && !r.State.Finished() {
			l.records[i] = e.deliver(hooks, t.client, r)
		}
		if hooks.Err() != nil {
			if ctx.Err() == nil {
				if failed := l.records[i]; failed.State == journal.Failed && !r.State.Finished() {
					l.records[i] = e.finish(failed, time.Since(began)) // The stop came before it could call for one.
				}
				e.settle(l.records, journal.Moot, context.Cause(hooks).Error())
			}
			return nil, nil
		}
		if l.records[i].State == journal.Failed && r.Hook.Kill && !r.State.Finished() {
			e.condemn(t, l.records[i:], time.Since(began))
			return t, &l.records[i]
		}
	}
	return nil, nil
}

// settleEarly lets callers go when none of the hooks from the i-th on is to be waited for.
func (l *launch) settleEarly(i int) {
	if !slices.ContainsFunc(l.records[i:], func(r journal.Record) bool { return r.Hook.Wait }) {
		l.settle()
	}
}

// Between questions whether a container runs yet.
const minStartPause, maxStartPause = 100 * time.Millisecond, 5 * time.Second

// awaitRunning returns the container once it runs; nil when it never will, or ctx has ended.
func (e *Engine) awaitRunning(ctx context.Context, l *launch) *target {
	for pause := minStartPause; ctx.Err() == nil; pause = min(2*pause, maxStartPause) {
		t, err := e.look(ctx, l.Container)
		switch state := stateOf(t); {
		case err == nil && state == runtimeapi.ContainerState_CONTAINER_RUNNING:
			return t
		case err == nil && state == runtimeapi.ContainerState_CONTAINER_EXITED, status.Code(err) == codes.NotFound:
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.asked:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

func stateOf(t *target) runtimeapi.ContainerState {
	if t == nil {
		return runtimeapi.ContainerState_CONTAINER_UNKNOWN
	}
	return t.status.GetState()
}
