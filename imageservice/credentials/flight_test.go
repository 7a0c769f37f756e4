package credentials

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestFlightIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights
		var runs, served atomic.Int32
		gate := make(chan struct{})
		run := func(ctx context.Context) []entry {
			runs.Add(1)
			select {
			case <-gate:
			case <-ctx.Done():
				t.Error("the run ended though somebody waits")
			}
			return []entry{{location: "a"}}
		}
		first, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.do(first, "k", run); !errors.Is(err, context.Canceled) {
				t.Errorf("the first caller left with %v", err)
			}
		})
		synctest.Wait()
		for range 4 {
			wg.Go(func() {
				if entries, err := f.do(t.Context(), "k", run); err == nil && len(entries) == 1 {
					served.Add(1)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(gate)
		wg.Wait()
		if runs.Load() != 1 || served.Load() != 4 || len(f.running) != 0 {
			t.Errorf("%d runs served %d callers and left %d, want 1, 4 and 0", runs.Load(), served.Load(), len(f.running))
		}
	})
}

func TestFlightEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights
		dying := make(chan struct{})
		var gone atomic.Int32
		var wg sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		for range 2 {
			wg.Go(func() {
				_, err := f.do(ctx, "k", func(ctx context.Context) []entry {
					<-ctx.Done()
					<-dying
					return nil
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a caller left with %v", err)
				}
				gone.Add(1)
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		if gone.Load() != 1 {
			t.Errorf("%d callers are gone, want one, and the last to wait for the end of the run", gone.Load())
		}
		// Whoever comes now gets a run of its own.
		entries, err := f.do(t.Context(), "k", func(context.Context) []entry { return []entry{{location: "new"}} })
		if err != nil || len(entries) != 1 {
			t.Errorf("the next caller got %d entries, %v", len(entries), err)
		}
		close(dying)
		wg.Wait()
	})
}
