package journal

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/cri-proxy/cri-proxy/internal/state"
)

// childEnv makes the test binary write a journal in a directory until it is killed.
const childEnv = "CRI_PROXY_JOURNAL_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// noon is when the tests begin.
func noon() time.Time { return time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC) }

// clock is a wall clock that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func storeOptions(dir string) state.Options {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return state.Options{Dir: dir, Log: logrus.NewEntry(log)}
}

// openStore opens a store that is closed at the end of the test.
func openStore(t *testing.T, o state.Options) *state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t *testing.T, s *state.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// newJournal returns an empty journal whose clock stands at noon.
func newJournal(t *testing.T) (*Journal, *clock) {
	t.Helper()
	c := &clock{at: noon()}
	return New(openStore(t, storeOptions(t.TempDir())), c.now), c
}

// record is one that decodes.
func record(id string, s State) Record {
	return Record{
		ID: id, Container: "c", Sandbox: "s", Handler: "runc", ContainerName: "app",
		Pod: Pod{Namespace: "default", Name: "web", UID: "u"}, Event: PreStop, State: s, Accepted: noon(),
		Hook: Hook{Name: "drain", Source: FromNode, Sleep: time.Second, Attempts: 1},
	}
}

// put commits records one by one, in one Update.
func put(j *Journal, records ...Record) error {
	return j.Update(func(tx *Tx) error {
		for _, r := range records {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
}

func mustPut(t *testing.T, j *Journal, records ...Record) {
	t.Helper()
	if err := put(j, records...); err != nil {
		t.Fatal(err)
	}
}

// plant writes a value that this version does not know, as another version
// would: with its entry in an index.
func plant(t *testing.T, j *Journal, index, id, raw string, at time.Time) {
	t.Helper()
	err := j.Update(func(tx *Tx) error {
		bucket := tx.open
		if index == finishedBucket {
			bucket = tx.finished
		}
		if err := addTo(bucket, indexKey(at, id), "paused"); err != nil {
			return err
		}
		return tx.records.Put([]byte(id), []byte(raw))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dump is everything that is in the file about hooks, byte by byte.
func dump(t *testing.T, j *Journal) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := ignoreNoBucket(j.viewTop(func(top *bolt.Bucket) error {
		return top.ForEachBucket(func(name []byte) error {
			b := top.Bucket(name)
			all[string(name)] = strconv.FormatUint(b.Sequence(), 10)
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s/%q", name, k)] = string(v)
				return nil
			})
		})
	}))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// checkIndexes recounts the records and compares both indexes, the number of
// the finished, Unfinished and Stats with them.
func checkIndexes(t *testing.T, j *Journal) {
	t.Helper()
	open, finished := map[string]string{}, map[string]string{}
	count, unreadable, oldest := map[State]int{}, map[string]bool{}, time.Time{}
	err := ignoreNoBucket(j.viewTop(func(top *bolt.Bucket) error {
		if err := top.Bucket([]byte(recordsBucket)).ForEach(func(k, v []byte) error {
			r, err := decodeRecord(k, v)
			switch {
			case err != nil:
				unreadable[string(k)] = true
				return nil //nolint:nilerr // It is another version's.
			case r.State.Finished():
				finished[string(indexKey(r.Finished, r.ID))] = string(r.State)
			default:
				open[string(indexKey(r.Accepted, r.ID))] = string(r.State)
				if oldest.IsZero() || r.Accepted.Before(oldest) {
					oldest = r.Accepted
				}
			}
			count[r.State]++
			return nil
		}); err != nil {
			return err
		}
		compareIndex(t, top.Bucket([]byte(openBucket)), open, unreadable, count)
		compareIndex(t, top.Bucket([]byte(finishedBucket)), finished, unreadable, count)
		return nil
	}))
	stats, statsErr := j.Stats()
	if err != nil || statsErr != nil || !maps.Equal(stats.ByState, count) {
		t.Errorf("Stats counts %v, the records are %v (%v, %v)", stats.ByState, count, err, statsErr)
	}
	if len(unreadable) == 0 && !stats.Oldest.Equal(oldest.Truncate(time.Microsecond)) {
		t.Errorf("Stats says that the oldest is of %s, want %s", stats.Oldest, oldest)
	}
	unfinished, err := j.Unfinished()
	if err != nil || len(unfinished) != len(open) {
		t.Errorf("Unfinished has %d records, want %d (%v)", len(unfinished), len(open), err)
	}
}

// compareIndex takes the entries of unreadable records out of what it compares,
// and counts them.
func compareIndex(t *testing.T, index *bolt.Bucket, want map[string]string, unreadable map[string]bool, count map[State]int) {
	t.Helper()
	got, entries := map[string]string{}, 0
	err := index.ForEach(func(k, v []byte) error {
		entries++
		if unreadable[string(idOf(k))] {
			count[State(v)]++
			return nil
		}
		got[string(k)] = string(v)
		return nil
	})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("an index differs from the records (-records +index):\n%s%v", diff, err)
	}
	if index.Sequence() != uint64(entries) {
		t.Errorf("an index has %d entries and counts %d", entries, index.Sequence())
	}
}

// ids are those of records, in their order.
func ids(records []Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.ID)
	}
	return all
}

func sortedIDs(records []Record) []string { return slices.Sorted(slices.Values(ids(records))) }
