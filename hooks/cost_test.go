package hooks

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// What recovery reads grows with what was left behind, and not with its square:
// that much more of everything costs that many more allocations, which each
// record that is read makes.
func TestCostOfRecoveryIsLinear(t *testing.T) { //nolint:paralleltest // It counts the allocations of the process.
	const few, times = 20, 10
	small, large := costOfRecovery(t, few), costOfRecovery(t, few*times)
	t.Logf("recovery makes %d allocations for %d containers of each kind, and %d for %d", small, few, large, few*times)
	if large > 3*times/2*small {
		t.Errorf("%d times as many containers cost %.1f times the allocations", times, float64(large)/float64(small))
	}
}

// costOfRecovery is how many allocations it takes to deal with what leaveBehind has left.
func costOfRecovery(t *testing.T, n int) (allocations uint64) {
	t.Helper()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		r.leaveBehind(n, d)
		r.crash()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.start()
		synctest.Wait()
		runtime.ReadMemStats(&after)
		allocations = after.Mallocs - before.Mallocs
		r.clean()
		if got := d.ran("true"); got != n {
			t.Errorf("%d hooks ran, want %d", got, n)
		}
	})
	return allocations
}

// leaveBehind puts into the journal n containers of each kind: that are to be
// stopped, that were to be started, of which a hook belongs to nothing any more, and
// of which only something is known. The runtime has but the first.
func (r *rig) leaveBehind(n int, d *double) {
	r.t.Helper()
	err := r.Journal.Update(func(tx *journal.Tx) error {
		var errs []error
		for i := range n {
			stopped := fmt.Sprintf("stopped-%d", i)
			d.add(stopped, running, nil)
			errs = append(errs,
				tx.PutContainer(journal.Container{ID: stopped, Sandbox: sandboxID, Handler: handlerName, Stop: &journal.Stop{
					Accepted: time.Now(), Asked: time.Minute, Deadline: r.Clock.deadline(time.Minute), Chosen: true,
				}}),
				tx.Put(leftRecord(stopped, journal.PreStop)),
				tx.Put(leftRecord(fmt.Sprintf("never-started-%d", i), journal.PostStart)),
				tx.Put(leftRecord(fmt.Sprintf("never-stopped-%d", i), journal.PreStop)),
				tx.PutContainer(journal.Container{ID: fmt.Sprintf("known-%d", i), Sandbox: sandboxID, Handler: handlerName, Seen: true}),
			)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// leftRecord is a hook that is to be delivered.
func leftRecord(container string, event journal.Event) journal.Record {
	hook := journal.Hook{Name: "drain", Source: journal.FromNode, Exec: []string{"true"}, Attempts: 1}
	return journal.Record{
		ID: journal.DeliveryID(container, event, hook), Container: container, Sandbox: sandboxID, Handler: handlerName,
		Event: event, Hook: hook, State: journal.Pending,
	}
}
