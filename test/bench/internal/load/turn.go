package load

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Turn is what one contestant did in one round.
type Turn struct {
	Latencies []time.Duration // sorted
	Wall      time.Duration   // from the first operation's begin to the last one's end
}

// Take does ops operations of w, with that many callers side by side.
func Take(ctx context.Context, w Workload, c *Client, callers, ops int) (Turn, error) {
	runtime.GC() // What the contestant before left behind is not for this one to clean up.
	latencies := make([]time.Duration, ops)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for range callers {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= ops {
					return nil
				}
				took, err := w.do(ctx, c, n)
				if err != nil {
					return err
				}
				latencies[n] = took
			}
		})
	}
	if err := group.Wait(); err != nil {
		return Turn{}, err
	}
	wall := time.Since(begin)
	slices.Sort(latencies)
	return Turn{Latencies: latencies, Wall: wall}, nil
}

// Quantile is the q-th part of sorted latencies: 0.5 is the median.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
