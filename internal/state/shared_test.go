package state

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Updates that come during a commit share the next one; one that fails fails alone.
func TestUpdatesShareCommits(t *testing.T) {
	t.Parallel()
	const others = 100
	entered, hold := make(chan struct{}), make(chan struct{})
	commits := 0
	o := options(t.TempDir())
	o.Fault = func(p Point) error {
		if p == BeforeCommit {
			if commits++; commits == 1 {
				close(entered)
				<-hold
			}
		}
		return nil
	}
	s := open(t, o)
	put := func(name string) error {
		return s.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("names"))
			if err != nil {
				return err
			}
			return b.Put([]byte(name), []byte(name))
		})
	}
	bad := errors.New("refused")
	var all sync.WaitGroup
	all.Go(func() { check(t, put("first"), nil) })
	<-entered
	for i := range others {
		all.Go(func() { check(t, put(strconv.Itoa(i)), nil) })
	}
	all.Go(func() { check(t, s.Update(func(*bolt.Tx) error { return bad }), bad) })
	waitQueued(t, s, others+1)
	close(hold)
	all.Wait()
	if commits != 2 {
		t.Errorf("there were %d commits, want one for the first and one for all others", commits)
	}
	check(t, s.View(func(tx *bolt.Tx) error {
		if got := tx.Bucket([]byte("names")).Stats().KeyN; got != others+1 {
			t.Errorf("%d names are there, want %d", got, others+1)
		}
		return nil
	}), nil)
}

func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// waitQueued returns when so many updates wait for their commit.
func waitQueued(t *testing.T, s *Store, count int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		s.writes.mu.Lock()
		got := len(s.writes.queue)
		s.writes.mu.Unlock()
		if got == count {
			return
		}
		<-tick.C
	}
	t.Fatalf("%d updates do not wait within ten seconds", count)
}
