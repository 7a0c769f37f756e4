package flight

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRun = errors.New("the run failed")

// slow is a run that takes a second and notes what came of it.
type slow struct {
	began, cancelled atomic.Int32
	err              error
}

func (s *slow) run(ctx context.Context) (string, error) {
	s.began.Add(1)
	select {
	case <-time.After(time.Second):
		return "value", s.err
	case <-ctx.Done():
		s.cancelled.Add(1)
		return "", errRun
	}
}

// outcome is what one caller gets.
type outcome struct {
	value  string
	shared bool
	err    error
	after  time.Duration
}

// TestLeaving: who shares a run, and what everybody gets when some leave before
// its end, after a second.
func TestLeaving(t *testing.T) {
	t.Parallel()
	done, joined := outcome{value: "value", after: time.Second}, outcome{value: "value", shared: true, after: time.Second}
	left := func(shared bool, after time.Duration) outcome {
		return outcome{shared: shared, err: context.DeadlineExceeded, after: after}
	}
	for name, c := range map[string]struct {
		stay             []time.Duration // How long each caller waits, 0 without end; all come at once, in order.
		err              error
		want             []outcome
		began, cancelled int32
	}{
		"one":            {stay: []time.Duration{0}, want: []outcome{done}, began: 1},
		"three":          {stay: []time.Duration{0, 0, 0}, want: []outcome{done, joined, joined}, began: 1},
		"it fails":       {stay: []time.Duration{0, 0}, err: errRun, want: []outcome{{"value", false, errRun, time.Second}, {"value", true, errRun, time.Second}}, began: 1},
		"the first left": {stay: []time.Duration{1, 0}, want: []outcome{left(false, 1), joined}, began: 1},
		"the last left":  {stay: []time.Duration{0, 1}, want: []outcome{done, left(true, 1)}, began: 1},
		"all left":       {stay: []time.Duration{1, 2}, want: []outcome{left(false, 1), left(true, 2)}, began: 1, cancelled: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g Group[string, string]
				s := slow{err: c.err}
				got := make([]outcome, len(c.stay))
				var wg sync.WaitGroup
				for i, stay := range c.stay {
					ctx, cancel := context.WithCancel(t.Context())
					if stay > 0 {
						ctx, cancel = context.WithTimeout(ctx, stay)
					}
					defer cancel()
					began := time.Now()
					wg.Go(func() {
						value, shared, err := g.Do(ctx, "key", s.run)
						got[i] = outcome{value, shared, err, time.Since(began)}
					})
					synctest.Wait()
				}
				wg.Wait()
				if !slices.Equal(got, c.want) {
					t.Errorf("the callers got %+v\nwant %+v", got, c.want)
				}
				if s.began.Load() != c.began || s.cancelled.Load() != c.cancelled || len(g.running) != 0 {
					t.Errorf("%d began, %d were cancelled, %d are kept; want %d, %d and none", s.began.Load(), s.cancelled.Load(), len(g.running), c.began, c.cancelled)
				}
			})
		})
	}
}

// TestLastOneWaits: the last caller to leave waits for the end of the run; who
// comes meanwhile gets one of its own.
func TestLastOneWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, string]
		dying := make(chan struct{})
		var gone atomic.Int32
		var wg sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		for range 2 {
			wg.Go(func() {
				_, _, err := g.Do(ctx, "key", func(ctx context.Context) (string, error) {
					<-ctx.Done()
					<-dying
					return "", errRun
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a caller left with %v", err)
				}
				gone.Add(1)
			})
		}
		synctest.Wait()
		if g.Waiting() != 2 {
			t.Errorf("%d wait, want 2", g.Waiting())
		}
		leave()
		synctest.Wait()
		if gone.Load() != 1 {
			t.Errorf("%d callers are gone, want one, and the last to wait for the end of the run", gone.Load())
		}
		value, shared, err := g.Do(t.Context(), "key", func(context.Context) (string, error) { return "new", nil })
		if value != "new" || shared || err != nil {
			t.Errorf("the next caller got %q, shared %t, %v", value, shared, err)
		}
		close(dying)
		wg.Wait()
	})
}

// TestApart: runs of two keys are two, and a run is not kept after its end.
func TestApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, string]
		var s slow
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			wg.Go(func() {
				if _, shared, err := g.Do(t.Context(), key, s.run); shared || err != nil {
					t.Errorf("%s: shared %t, %v", key, shared, err)
				}
			})
		}
		wg.Wait()
		if _, shared, err := g.Do(t.Context(), "a", s.run); shared || err != nil {
			t.Errorf("after the end: shared %t, %v", shared, err)
		}
		if s.began.Load() != 3 || len(g.running) != 0 {
			t.Errorf("%d began, %d are kept; want 3 and none", s.began.Load(), len(g.running))
		}
	})
}

// TestContext: a run has the first caller's values and nobody's deadline.
func TestContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	var g Group[string, bool]
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "first"), time.Minute)
	defer cancel()
	limited, _, err := g.Do(ctx, "key", func(ctx context.Context) (bool, error) {
		if ctx.Value(key{}) != "first" {
			t.Error("the first caller's values are lost")
		}
		_, limited := ctx.Deadline()
		return limited, nil
	})
	if limited || err != nil {
		t.Errorf("with a deadline: %t, %v", limited, err)
	}
}

// TestJoin: it joins what runs and begins nothing.
func TestJoin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g Group[string, string]
		if _, joined, err := g.Join(t.Context(), "key"); joined || err != nil {
			t.Errorf("nothing runs: joined %t, %v", joined, err)
		}
		var s slow
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := g.Do(t.Context(), "key", s.run); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if value, joined, err := g.Join(t.Context(), "key"); value != "value" || !joined || err != nil {
			t.Errorf("got %q, joined %t, %v", value, joined, err)
		}
		wg.Wait()
	})
}
