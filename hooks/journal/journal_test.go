package journal

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/cri-proxy/cri-proxy/internal/state"
)

func TestEmptyJournal(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	all, unreadable, err := j.Records()
	open, openErr := j.Unfinished()
	containers, containersErr := j.Containers()
	_, known, containerErr := j.Container("c")
	stats, statsErr := j.Stats()
	if err := errors.Join(err, openErr, containersErr, containerErr, statsErr); err != nil {
		t.Error(err)
	}
	if len(all)+unreadable+len(open)+len(containers)+len(stats.ByState) > 0 || known || !stats.Oldest.IsZero() {
		t.Errorf("an empty journal has %v, %v, %v, %v", all, open, containers, stats)
	}
	if _, err := j.Record("r"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Record: %v, want %v", err, ErrNotFound)
	}
	if New(j.store, nil).now().IsZero() {
		t.Error("without a clock there is no time")
	}
}

// Hooks are delivered one after another, whatever the wall clock did meanwhile.
func TestOrder(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	add := func(id, container string, event Event, position int, at time.Duration, s State) {
		r := record(id, s)
		r.Container, r.Event, r.Position, r.Accepted = container, event, position, noon().Add(at)
		mustPut(t, j, r)
	}
	add("9", "a", PreStop, 0, time.Second, Pending)
	add("1", "a", PreStop, 1, time.Second, Running)
	add("5", "a", PreStop, 2, -time.Hour, Pending) // The clock was set back.
	add("7", "a", PostStart, 0, time.Minute, Pending)
	add("3", "b", PreStop, 1, 0, Pending)
	add("2", "b", PreStop, 0, time.Hour, Pending) // Accepted anew.
	add("4", "b", PreStop, 2, 0, Delivered)
	add("8", "b", PreStop, 1, 0, Moot)
	add("6", "b", PreStop, 1, 0, Moot)
	checkIndexes(t, j)

	open, err := j.Unfinished()
	if diff := cmp.Diff([]string{"7", "9", "1", "5", "2", "3"}, ids(open)); diff != "" || err != nil {
		t.Errorf("Unfinished (-want +got):\n%s%v", diff, err)
	}
	all, unreadable, err := j.Records()
	if diff := cmp.Diff([]string{"5", "3", "6", "8", "4", "9", "1", "7", "2"}, ids(all)); diff != "" || err != nil || unreadable != 0 {
		t.Errorf("Records (-want +got):\n%s%d unreadable, %v", diff, unreadable, err)
	}
}

// What another version wrote stays byte by byte, whatever this one does.
func TestUnreadableRecordsAreKept(t *testing.T) {
	t.Parallel()
	j, c := newJournal(t)
	old := noon().Add(-3 * KeepFor)
	values := map[string]string{
		"newer": `{"version":2,"value":{"id":"newer","state":"paused"}}`,
		"state": `{"version":1,"value":{"id":"state","container":"c","event":"PreStop","state":"paused"}}`,
		"other": `{"version":1,"value":{"id":"newer","container":"c","event":"PreStop","state":"pending"}}`,
		"null":  `null`,
		"text":  `no JSON`,
	}
	for id, raw := range values {
		plant(t, j, openBucket, "open-"+id, raw, old)
		plant(t, j, finishedBucket, "finished-"+id, raw, old)
	}
	mustPut(t, j, record("a", Pending), record("b", Delivered))
	for name, change := range map[string]func(tx *Tx, id string) error{
		"Put":  func(tx *Tx, id string) error { return tx.Put(record(id, Pending)) },
		"Drop": func(tx *Tx, id string) error { return tx.Drop(id) },
		"Get":  func(tx *Tx, id string) error { _, err := tx.Get(id); return err },
	} {
		err := j.Update(func(tx *Tx) error { return change(tx, "open-newer") })
		if !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v, want %v", name, err, ErrUnreadable)
		}
	}
	c.at = noon().Add(2 * KeepFor)
	mustPut(t, j, record("c", Failed)) // Prunes b.
	checkIndexes(t, j)

	all, unreadable, err := j.Records()
	if diff := cmp.Diff([]string{"a", "c"}, sortedIDs(all)); diff != "" || unreadable != 2*len(values) || err != nil {
		t.Errorf("Records (-want +got):\n%s%d unreadable, want %d, %v", diff, unreadable, 2*len(values), err)
	}
	if open, err := j.Unfinished(); err != nil || !slices.Equal(ids(open), []string{"a"}) {
		t.Errorf("Unfinished: %v (%v)", ids(open), err)
	}
	got := dump(t, j)
	for id, raw := range values {
		for _, index := range []string{"open", "finished"} {
			if now := got["records/"+strconv.Quote(index+"-"+id)]; now != raw {
				t.Errorf("%s-%s is now %q, was %q", index, id, now, raw)
			}
		}
	}
	if _, err := j.Record("open-newer"); !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrNotFound) {
		t.Errorf("Record: %v, want %v", err, ErrUnreadable)
	}
}

func TestUnreadableContainersAreKept(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	const raw = `{"version":2,"value":{"id":"c"}}`
	err := j.Update(func(tx *Tx) error {
		return errors.Join(tx.containers.Put([]byte("c"), []byte(raw)), tx.PutContainer(Container{ID: "d"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(tx *Tx) error{
		"PutContainer": func(tx *Tx) error { return tx.PutContainer(Container{ID: "c"}) },
		"Shorten":      func(tx *Tx) error { return tx.Shorten("c", Stop{}) },
	} {
		if err := j.Update(change); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v, want %v", name, err, ErrUnreadable)
		}
	}
	if _, known, err := j.Container("c"); known || !errors.Is(err, ErrUnreadable) {
		t.Errorf("Container: %v, %v", known, err)
	}
	if all, err := j.Containers(); err != nil || len(all) != 1 || all[0].ID != "d" {
		t.Errorf("Containers: %v (%v)", all, err)
	}
	if got := dump(t, j)[`containers/"c"`]; got != raw {
		t.Errorf("the container is now %q", got)
	}
}

// Whoever has the journal uses it from several goroutines at once.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	var group errgroup.Group
	for worker := range 4 {
		group.Go(func() error {
			var errs []error
			for n := range 10 {
				id := strconv.Itoa(worker*10 + n)
				errs = append(errs, put(j, record(id, Pending)), put(j, record(id, Delivered)))
				_, err := j.Record(id)
				_, openErr := j.Unfinished()
				_, statsErr := j.Stats()
				errs = append(errs, err, openErr, statsErr)
			}
			return errors.Join(errs...)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	checkIndexes(t, j)
	if s, err := j.Stats(); err != nil || s.ByState[Delivered] != 40 {
		t.Errorf("Stats: %v (%v)", s, err)
	}
}

// Each Update is one transaction, and so one commit: two flushes of the disk.
// Prune is part of it.
func TestUpdateIsOneCommit(t *testing.T) {
	t.Parallel()
	o, points := storeOptions(t.TempDir()), map[state.Point]int{}
	o.Fault = func(p state.Point) error { points[p]++; return nil }
	c := &clock{at: noon()}
	j := New(openStore(t, o), c.now)
	txid := func() (id int) {
		if err := j.store.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := txid()
	for n := range 60 {
		c.at = noon().Add(time.Duration(n) * time.Hour)
		mustPut(t, j, record(strconv.Itoa(n), Pending), record(strconv.Itoa(n), Delivered), record("open"+strconv.Itoa(n), Pending))
		if want := n + 1; points[state.BeforeCommit] != want || points[state.AfterCommit] != want || txid() != first+want {
			t.Fatalf("after %d Updates: %v, %d transactions", want, points, txid()-first)
		}
	}
	before := points[state.AfterCommit]
	if _, _, err := j.Records(); err != nil || points[state.AfterCommit] != before {
		t.Errorf("reading committed something (%v)", err)
	}
}
