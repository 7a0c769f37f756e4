package journal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// What an Update costs does not grow with what is kept: it reads no record but
// its own, and writes a few pages.
func TestCostOfAnUpdateStaysFlat(t *testing.T) { //nolint:paralleltest // It counts the allocations of the process.
	few, many := costOfUpdates(t, 100), costOfUpdates(t, KeepMost)
	t.Logf("an Update costs %s with 100 finished records and %s with %d", few, many, KeepMost)
	if many.allocs > 2*few.allocs || many.pages > 3*few.pages {
		t.Errorf("an Update costs %s with 100 finished records and %s with %d", few, many, KeepMost)
	}
}

type cost struct {
	allocs, pages float64
	median        time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("%.0f allocations, %.1f pages and %s", c.allocs, c.pages, c.median)
}

// costOfUpdates is the mean of Updates that accept, begin and finish records
// beside others, and remove one for each that they finish where there are too many.
func costOfUpdates(t *testing.T, finished int) cost {
	t.Helper()
	j, c := newJournal(t)
	finish(t, j, noon(), finished)
	c.at = noon().Add(KeepFor / 2)
	states, n, pages := []State{Pending, Running, Delivered}, 0, pagesOf(t, j)
	var took []time.Duration
	allocs := testing.AllocsPerRun(99, func() {
		r := record(fmt.Sprintf("r%d", n/len(states)), states[n%len(states)])
		start := time.Now()
		mustPut(t, j, r)
		took = append(took, time.Since(start))
		n++
	})
	pages = pagesOf(t, j) - pages
	slices.Sort(took)
	checkIndexes(t, j)
	return cost{allocs: allocs, pages: pages / float64(n), median: took[len(took)/2]}
}

// pagesOf is how many pages were written so far.
func pagesOf(t *testing.T, j *Journal) (pages float64) {
	t.Helper()
	err := j.store.View(func(tx *bolt.Tx) error {
		stats := tx.DB().Stats()
		pages = float64(stats.TxStats.GetPageAlloc()) / float64(tx.DB().Info().PageSize)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}
