// Package flight lets callers that ask for the same at one time share one run.
//
// Other than with golang.org/x/sync/singleflight, a caller may leave: the run
// goes on for the others, and ends when the last one leaves, who waits for that
// end. So a run always has an owner, and none is cancelled under somebody who
// still wants it.
//
// Not guaranteed: that a run which is being cancelled is not beside the next
// one of its key. A run that panics ends the process.
package flight

import (
	"context"
	"sync"
)

// Group shares runs by their key. Its zero value is ready, and it is safe for
// concurrent use. It keeps nothing of a run that has ended.
type Group[K comparable, V any] struct {
	mu      sync.Mutex
	running map[K]*flight[V]
}

type flight[V any] struct {
	callers int // Guarded by the group's lock.
	cancel  context.CancelFunc

	done  chan struct{} // Closed when value and err stand.
	value V
	err   error
}

// Do returns what run returns, and whether it was begun by another caller. The
// run has the values of the first caller's context and nobody's deadline, since
// it is not for one of them only. For a caller who leaves the error is ctx.Err(),
// as it is; run must not return such an error of its own.
func (g *Group[K, V]) Do(ctx context.Context, key K, run func(context.Context) (V, error)) (value V, shared bool, err error) {
	f, shared := g.enter(ctx, key, run)
	value, err = g.wait(ctx, key, f)
	return value, shared, err
}

// Join is Do for a run that is under way; false when there is none, and none is
// begun.
func (g *Group[K, V]) Join(ctx context.Context, key K) (value V, joined bool, err error) {
	f, joined := g.enter(ctx, key, nil)
	if !joined {
		return value, false, nil
	}
	value, err = g.wait(ctx, key, f)
	return value, true, err
}

// Waiting returns how many callers wait for runs.
func (g *Group[K, V]) Waiting() (callers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.running {
		callers += f.callers
	}
	return callers
}

// enter counts the caller in, and begins the run if there is none; without one to
// begin the flight is nil.
func (g *Group[K, V]) enter(ctx context.Context, key K, run func(context.Context) (V, error)) (f *flight[V], shared bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, shared = g.running[key]; shared {
		f.callers++
		return f, true
	}
	if run == nil {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f = &flight[V]{callers: 1, cancel: cancel, done: make(chan struct{})}
	if g.running == nil {
		g.running = map[K]*flight[V]{}
	}
	g.running[key] = f
	go func() { // The last caller waits for it.
		defer close(f.done)
		f.value, f.err = run(ctx)
		g.end(key, f)
	}()
	return f, false
}

func (g *Group[K, V]) wait(ctx context.Context, key K, f *flight[V]) (value V, err error) {
	select {
	case <-f.done:
		g.leave(key, f)
		return f.value, f.err
	case <-ctx.Done():
		if g.leave(key, f) {
			<-f.done
		}
		return value, ctx.Err()
	}
}

// leave reports whether the caller was the last one; then the run is cancelled,
// and nobody joins it any more.
func (g *Group[K, V]) leave(key K, f *flight[V]) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.callers--
	if f.callers > 0 {
		return false
	}
	g.drop(key, f)
	f.cancel()
	return true
}

func (g *Group[K, V]) end(key K, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(key, f)
}

// drop is called with the lock held.
func (g *Group[K, V]) drop(key K, f *flight[V]) {
	if g.running[key] == f { // Not one that began since.
		delete(g.running, key)
	}
}
