package credentials

import (
	"context"
	"sync"
)

// flights lets callers that ask the same at one time share one run. Other than
// with golang.org/x/sync/singleflight, a caller may leave: the run goes on for
// the others, and ends when the last one leaves, who waits for that end.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	waiting int
	cancel  context.CancelFunc
	landed  chan struct{} // Closed when entries are there.
	entries []entry
}

// do returns what run returns, for the caller who starts it or one who joins. The
// only error is ctx's.
func (f *flights) do(ctx context.Context, key string, run func(context.Context) []entry) ([]entry, error) {
	one := f.join(ctx, key, run)
	select {
	case <-one.landed:
		return one.entries, nil
	case <-ctx.Done():
		f.leave(key, one)
		return nil, context.Cause(ctx)
	}
}

func (f *flights) join(ctx context.Context, key string, run func(context.Context) []entry) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.running[key]
	if !ok {
		one = f.start(ctx, key, run)
	}
	one.waiting++
	return one
}

// start starts a run that does not end with the caller who happens to be the first.
func (f *flights) start(ctx context.Context, key string, run func(context.Context) []entry) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	one := &flight{cancel: cancel, landed: make(chan struct{})}
	if f.running == nil {
		f.running = map[string]*flight{}
	}
	f.running[key] = one
	go func() {
		defer cancel()
		one.entries = run(ctx)
		f.mu.Lock()
		f.forget(key, one)
		f.mu.Unlock()
		close(one.landed)
	}()
	return one
}

// leave takes a caller off. With the last one the flight is forgotten at once,
// so that nobody joins a run that is being killed.
func (f *flights) leave(key string, one *flight) {
	f.mu.Lock()
	one.waiting--
	last := one.waiting == 0
	if last {
		f.forget(key, one)
	}
	f.mu.Unlock()
	if last {
		one.cancel()
		<-one.landed
	}
}

// forget is called with the lock held.
func (f *flights) forget(key string, one *flight) {
	if f.running[key] == one {
		delete(f.running, key)
	}
}
