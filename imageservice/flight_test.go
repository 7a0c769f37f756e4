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

	"github.com/cri-proxy/cri-proxy/configs"
)

// slow is a pull that takes a second.
type slow struct {
	mu    sync.Mutex
	began int
}

func (s *slow) pull(ctx context.Context) (pulled, error) {
	s.mu.Lock()
	s.began++
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
		return pulled{}, nil
	case <-ctx.Done():
		return pulled{}, ctx.Err()
	}
}

// TestFlightsApart: only equal pulls are one, and only while they run.
func TestFlightsApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := Service{memory: &memory{}}
		var upstream slow
		var wg sync.WaitGroup
		keys := []flightKey{
			{}, {store: "x"}, {runtime: "x"}, {snapshotter: "x"}, {image: "x"}, {auth: account{username: "x"}}, {auth: account{password: "x"}},
		}
		for _, key := range keys {
			wg.Go(func() {
				if _, shared, err := f.share(t.Context(), key, false, upstream.pull); shared || err != nil {
					t.Errorf("%+v: shared %t, %v", key, shared, err)
				}
			})
		}
		wg.Wait()
		if _, shared, err := f.share(t.Context(), keys[0], false, upstream.pull); shared || err != nil {
			t.Errorf("after the end: shared %t, %v", shared, err)
		}
		if upstream.began != len(keys)+1 || f.flights.Waiting() != 0 {
			t.Errorf("%d began, %d are kept; want %d and none", upstream.began, f.flights.Waiting(), len(keys)+1)
		}
	})
}

// TestFlightContext: the shared pull has the first caller's metadata and nobody's
// deadline; with one of its own a caller begins a pull for itself, or joins.
func TestFlightContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := Service{memory: &memory{}}
		seen := func(ctx context.Context) (pulled, error) {
			_, limited := ctx.Deadline()
			md, _ := metadata.FromOutgoingContext(ctx)
			return pulled{header: metadata.Pairs("limited", strconv.FormatBool(limited)), trailer: md}, nil
		}
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-x"), time.Minute)
		defer cancel()
		for own, limited := range map[bool]string{false: "false", true: "true"} {
			got, _, err := f.share(ctx, flightKey{}, own, seen)
			if err != nil || !slices.Equal(got.header.Get("limited"), []string{limited}) || !slices.Equal(got.trailer.Get("traceparent"), []string{"00-x"}) {
				t.Errorf("with a deadline of its own %t: %v, %v", own, got, err)
			}
		}
		var upstream slow
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := f.share(t.Context(), flightKey{}, false, upstream.pull); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, shared, err := f.share(ctx, flightKey{}, true, upstream.pull); !shared || err != nil {
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
