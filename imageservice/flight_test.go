package imageservice

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
)

// slow is a pull that takes a second and notes what came of it.
type slow struct {
	mu        sync.Mutex
	began     int
	cancelled int
	err       error
}

func (s *slow) pull(ctx context.Context) (pulled, error) {
	s.mu.Lock()
	s.began++
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
		return pulled{response: &runtimeapi.PullImageResponse{ImageRef: "id"}}, s.err
	case <-ctx.Done():
		s.mu.Lock()
		s.cancelled++
		s.mu.Unlock()
		return pulled{}, ctx.Err()
	}
}

// outcome is what one caller of a shared pull gets.
type outcome struct {
	id     string
	shared bool
	code   codes.Code
	after  time.Duration
}

// TestFlights: who shares an upstream pull, and what everybody gets when some
// leave before its end, after a second.
func TestFlights(t *testing.T) {
	t.Parallel()
	done := outcome{id: "id", after: time.Second}
	joined := outcome{id: "id", shared: true, after: time.Second}
	for name, c := range map[string]struct {
		stay             []time.Duration // How long each caller waits, 0 without end; all come at once, in order.
		err              error
		want             []outcome
		began, cancelled int
	}{
		"one":            {stay: []time.Duration{0}, want: []outcome{done}, began: 1},
		"three":          {stay: []time.Duration{0, 0, 0}, want: []outcome{done, joined, joined}, began: 1},
		"it fails":       {stay: []time.Duration{0, 0}, err: status.Error(codes.NotFound, "no"), want: []outcome{{"id", false, codes.NotFound, time.Second}, {"id", true, codes.NotFound, time.Second}}, began: 1},
		"the first left": {stay: []time.Duration{1, 0}, want: []outcome{{"", false, codes.DeadlineExceeded, 1}, joined}, began: 1},
		"the last left":  {stay: []time.Duration{0, 1}, want: []outcome{done, {"", true, codes.DeadlineExceeded, 1}}, began: 1},
		"all left":       {stay: []time.Duration{1, 2}, want: []outcome{{"", false, codes.DeadlineExceeded, 1}, {"", true, codes.DeadlineExceeded, 2}}, began: 1, cancelled: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var f flights
				upstream, key := slow{err: c.err}, flightKey{image: "app"}
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
						answer, shared, err := f.do(ctx, key, false, upstream.pull)
						got[i] = outcome{answer.response.GetImageRef(), shared, status.Code(err), time.Since(began)}
					})
					synctest.Wait()
				}
				wg.Wait()
				if !slices.Equal(got, c.want) {
					t.Errorf("the callers got %+v\nwant %+v", got, c.want)
				}
				if upstream.began != c.began || upstream.cancelled != c.cancelled || len(f.running) != 0 {
					t.Errorf("%d began, %d were cancelled, %d are kept; want %d, %d and none", upstream.began, upstream.cancelled, len(f.running), c.began, c.cancelled)
				}
			})
		})
	}
}

// TestFlightsApart: only equal pulls are one, and only while they run.
func TestFlightsApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights
		var upstream slow
		var wg sync.WaitGroup
		keys := []flightKey{
			{}, {store: "x"}, {runtime: "x"}, {snapshotter: "x"}, {image: "x"}, {auth: account{username: "x"}}, {auth: account{password: "x"}},
		}
		for _, key := range keys {
			wg.Go(func() {
				if _, shared, err := f.do(t.Context(), key, false, upstream.pull); shared || err != nil {
					t.Errorf("%+v: shared %t, %v", key, shared, err)
				}
			})
		}
		wg.Wait()
		if _, shared, err := f.do(t.Context(), keys[0], false, upstream.pull); shared || err != nil {
			t.Errorf("after the end: shared %t, %v", shared, err)
		}
		if upstream.began != len(keys)+1 || len(f.running) != 0 {
			t.Errorf("%d began, %d are kept; want %d and none", upstream.began, len(f.running), len(keys)+1)
		}
	})
}

// TestFlightContext: the shared pull has the first caller's metadata and nobody's
// deadline; with one of its own a caller begins a pull for itself, or joins.
func TestFlightContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights
		seen := func(ctx context.Context) (pulled, error) {
			_, limited := ctx.Deadline()
			md, _ := metadata.FromOutgoingContext(ctx)
			return pulled{header: metadata.Pairs("limited", strconv.FormatBool(limited)), trailer: md}, nil
		}
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-x"), time.Minute)
		defer cancel()
		for own, limited := range map[bool]string{false: "false", true: "true"} {
			got, _, err := f.do(ctx, flightKey{}, own, seen)
			if err != nil || !slices.Equal(got.header.Get("limited"), []string{limited}) || !slices.Equal(got.trailer.Get("traceparent"), []string{"00-x"}) {
				t.Errorf("with a deadline of its own %t: %v, %v", own, got, err)
			}
		}
		var upstream slow
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := f.do(t.Context(), flightKey{}, false, upstream.pull); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, shared, err := f.do(ctx, flightKey{}, true, upstream.pull); !shared || err != nil {
			t.Errorf("beside an equal one: shared %t, %v", shared, err)
		}
		wg.Wait()
	})
}

// TestTurns: never more than the limit at once, in the order in which they came,
// without those who left.
func TestTurns(t *testing.T) {
	t.Parallel()
	for limit := range 4 {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testTurns(t, limit) })
		})
	}
}

func testTurns(t *testing.T, limit int) {
	t.Helper()
	s := newSettings("h", configs.Images{MaxParallelPulls: limit}, nil)
	const callers = 30
	began := make([]time.Duration, callers)
	running, most := 0, 0
	var mu sync.Mutex
	note := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		running += by
		most = max(most, running)
	}
	var wg sync.WaitGroup
	for i := range callers {
		ctx, leave := context.WithCancel(t.Context())
		came := time.Now()
		wg.Go(func() {
			done, err := s.turn(ctx)
			if err != nil {
				if i%7 != 5 || status.Code(err) != codes.Canceled {
					t.Errorf("%d: %v", i, err)
				}
				began[i] = -1
				return
			}
			defer done()
			began[i] = time.Since(came)
			note(1)
			<-time.After(time.Second)
			note(-1)
		})
		synctest.Wait()
		if i%7 == 5 {
			leave()
			synctest.Wait()
		}
		t.Cleanup(leave)
	}
	wg.Wait()
	began = slices.DeleteFunc(began, func(d time.Duration) bool { return d < 0 })
	want := callers
	if limit > 0 {
		want = limit
	}
	if most != want || !slices.IsSorted(began) || (limit == 1) != (began[len(began)-1] >= 20*time.Second) {
		t.Errorf("%d at once, want %d; they began after %v", most, want, began)
	}
}
