package imageservice

import (
	"context"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// flightKey is what equal pulls have in common. It holds secrets, and so lives
// no longer than the pull.
type flightKey struct {
	store       string
	runtime     string // "" also where the runtime does not get to know it.
	snapshotter string
	image       string // As given.
	auth        account
}

// account is an AuthConfig, to be compared.
type account struct{ username, password, auth, server, identityToken, registryToken, unknown string }

// pulled is what a runtime answered to a pull. The header and trailer come with
// an error too.
type pulled struct {
	response        *runtimeapi.PullImageResponse
	header, trailer metadata.MD
}

// flights are the upstream pulls under way. Equal ones are one.
type flights struct {
	mu      sync.Mutex
	running map[flightKey]*flight
}

// flight is one upstream pull and those who wait for it.
type flight struct {
	callers int // Guarded by flights.mu.
	cancel  context.CancelFunc

	done   chan struct{} // Closed when answer and err stand.
	answer pulled
	err    error
}

// do returns what pull returns, which runs once for all who come with this key
// while it runs. It goes on when a caller leaves, and is cancelled, and waited
// for, when the last one does. It runs with the first caller's metadata and
// without anybody's deadline, since it is not for one of them only; pull with
// own, a caller joins what runs but begins nothing that others could join: its
// deadline is the pull's.
func (f *flights) do(ctx context.Context, key flightKey, own bool, pull func(context.Context) (pulled, error)) (answer pulled, shared bool, err error) {
	fl, shared := f.join(ctx, key, own, pull)
	if fl == nil {
		answer, err = pull(ctx)
		return answer, false, err
	}
	select {
	case <-fl.done:
		f.leave(key, fl)
		return fl.answer, shared, fl.err
	case <-ctx.Done():
		if f.leave(key, fl) {
			<-fl.done
		}
		return pulled{}, shared, status.FromContextError(ctx.Err()).Err()
	}
}

// join returns the flight of a key, begun if it must be; nil if it must not.
func (f *flights) join(ctx context.Context, key flightKey, own bool, pull func(context.Context) (pulled, error)) (fl *flight, shared bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, shared = f.running[key]; shared {
		fl.callers++
		return fl, true
	}
	if own {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl = &flight{callers: 1, cancel: cancel, done: make(chan struct{})}
	if f.running == nil {
		f.running = map[flightKey]*flight{}
	}
	f.running[key] = fl
	go func() { // The last caller waits for it.
		defer close(fl.done)
		fl.answer, fl.err = pull(ctx)
		f.end(key, fl)
	}()
	return fl, false
}

// leave reports whether the caller was the last one; then the flight is
// cancelled, and nobody joins it any more.
func (f *flights) leave(key flightKey, fl *flight) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.callers--
	if fl.callers > 0 {
		return false
	}
	f.drop(key, fl)
	fl.cancel()
	return true
}

func (f *flights) end(key flightKey, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(key, fl)
}

func (f *flights) drop(key flightKey, fl *flight) {
	if f.running[key] == fl { // Not one that began since.
		delete(f.running, key)
	}
}
