package journal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// finish commits n delivered records that finished one second after another.
func finish(t *testing.T, j *Journal, from time.Time, n int) {
	t.Helper()
	err := j.Update(func(tx *Tx) error {
		for i := range n {
			r := record(fmt.Sprintf("%s-%05d", from.Format("02T15"), i), Delivered)
			r.Finished = from.Add(time.Duration(i) * time.Second)
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPruneByAge(t *testing.T) {
	t.Parallel()
	j, c := newJournal(t)
	mustPut(t, j, record("old", Delivered), record("older-but-open", Pending), record("failed", Failed))
	steps := []struct {
		after time.Duration
		put   Record
		want  []string
	}{
		{KeepFor, record("b", Skipped), []string{"b", "failed", "old", "older-but-open"}},
		{KeepFor + time.Millisecond, record("c", Pending), []string{"b", "c", "failed", "old", "older-but-open"}}, // Finishes nothing.
		{KeepFor + time.Millisecond, record("c", Moot), []string{"b", "c", "older-but-open"}},
		{9 * KeepFor, record("d", Failed), []string{"d", "older-but-open"}},
		{9 * KeepFor, record("d", Pending), []string{"d", "older-but-open"}}, // A retry is not pruned,
		{18 * KeepFor, record("e", Moot), []string{"d", "e", "older-but-open"}},
		{18 * KeepFor, record("d", Delivered), []string{"d", "e", "older-but-open"}}, // and counts from its end.
	}
	for i, s := range steps {
		c.at = noon().Add(s.after)
		mustPut(t, j, s.put)
		all, _, err := j.Records()
		if diff := cmp.Diff(s.want, sortedIDs(all)); diff != "" || err != nil {
			t.Errorf("step %d (-want +got):\n%s%v", i, diff, err)
		}
		checkIndexes(t, j)
	}
}

// A machine without a battery starts in 1970.
func TestPruneWithAClockThatWasNeverSet(t *testing.T) {
	t.Parallel()
	j, c := newJournal(t)
	c.at = time.Unix(0, 0)
	mustPut(t, j, record("a", Delivered))
	c.at = time.Unix(60, 0)
	mustPut(t, j, record("b", Delivered))
	all, _, err := j.Records()
	if diff := cmp.Diff([]string{"a", "b"}, sortedIDs(all)); diff != "" || err != nil {
		t.Errorf("in 1970 (-want +got):\n%s%v", diff, err)
	}
	c.at = noon() // Now it has asked for the time.
	mustPut(t, j, record("c", Delivered))
	if all, _, err = j.Records(); err != nil || !slices.Equal(ids(all), []string{"c"}) {
		t.Errorf("after the clock was set: %v (%v)", ids(all), err)
	}
	checkIndexes(t, j)
}

func TestPruneByNumber(t *testing.T) {
	t.Parallel()
	j, c := newJournal(t)
	finish(t, j, noon(), KeepMost-1)
	c.at = noon().Add(3 * time.Hour)
	mustPut(t, j, record("open", Running))
	finish(t, j, noon().Add(3*time.Hour), 3)
	checkIndexes(t, j)
	all, _, err := j.Records()
	if len(all) != KeepMost+1 || err != nil {
		t.Fatalf("%d records, want %d and the open one (%v)", len(all), KeepMost, err)
	}
	got := sortedIDs(all)
	if got[0] != "01T12-00002" || got[len(got)-2] != "01T15-00002" || got[len(got)-1] != "open" {
		t.Errorf("from %s to %s: not the newest", got[0], got[len(got)-2])
	}
}

// Those that cannot be read count, but newer ones do not have to go for them.
func TestPruneByNumberAmongUnreadable(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	err := j.Update(func(tx *Tx) error {
		for i := range KeepMost + 2 {
			id := fmt.Sprintf("newer-%05d", i)
			if err := addTo(tx.finished, indexKey(noon().Add(-time.Hour), id), "paused"); err != nil {
				return err
			}
			if err := tx.records.Put([]byte(id), []byte(`{"version":2}`)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, j, record("a", Delivered))
	all, unreadable, err := j.Records()
	if diff := cmp.Diff([]string{"a"}, ids(all)); diff != "" || unreadable != KeepMost+2 || err != nil {
		t.Errorf("Records (-want +got):\n%s%d unreadable, %v", diff, unreadable, err)
	}
	checkIndexes(t, j)
}
