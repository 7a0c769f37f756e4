package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/cri-proxy/cri-proxy/internal/state"
)

// How much of the past is kept.
const (
	KeepFor  = 24 * time.Hour
	KeepMost = 10_000
)

// ErrNotFound is wrapped by the error about an id that no record has.
var ErrNotFound = errors.New("no such record")

// The buckets. open and finished are indexes over records: keys that sort by
// time, and the state as the value. Their sequences are how many they hold.
const (
	topBucket       = "hooks"
	recordsBucket   = "records"
	openBucket      = "open"
	finishedBucket  = "finished"
	containerBucket = "containers"
)

// Journal is the journal in a state file. It holds nothing in memory, and is
// safe for concurrent use.
type Journal struct {
	store *state.Store
	now   func() time.Time
}

// New returns the journal in store. now tells the wall clock's time; nil means time.Now.
func New(store *state.Store, now func() time.Time) *Journal {
	if now == nil {
		now = time.Now
	}
	return &Journal{store: store, now: now}
}

// Update runs fn and commits all its changes at once, and removes what is too
// old: one commit, also if nothing changed. After nil they are on disk; after an
// error of fn nothing was changed; after any other error all or nothing is on
// disk, and the same Update may be made again. fn uses its Tx, never the Journal.
func (j *Journal) Update(fn func(*Tx) error) error {
	return j.store.Update(func(b *bolt.Tx) error {
		tx, err := openTx(b, j.now())
		if err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return err
		}
		return tx.prune()
	})
}

// Record returns the record with an id.
func (j *Journal) Record(id string) (Record, error) {
	var r Record
	err := j.view(recordsBucket, func(b *bolt.Bucket) (err error) {
		r, err = readRecord(b, id)
		return err
	})
	if errors.Is(err, errNoBucket) {
		err = fmt.Errorf("hook %q: %w", id, ErrNotFound)
	}
	return r, err
}

func readRecord(records *bolt.Bucket, id string) (Record, error) {
	raw := records.Get([]byte(id))
	if raw == nil {
		return Record{}, fmt.Errorf("hook %q: %w", id, ErrNotFound)
	}
	r, err := decodeRecord([]byte(id), raw)
	if err != nil {
		return Record{}, fmt.Errorf("hook %q: %w", id, err)
	}
	return r, nil
}

// Records returns all records, the oldest first, and how many more there are
// that it cannot read.
func (j *Journal) Records() (all []Record, unreadable int, err error) {
	err = ignoreNoBucket(j.view(recordsBucket, func(b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			r, err := decodeRecord(k, v)
			if err != nil {
				unreadable++
				return nil //nolint:nilerr // It is counted, and belongs to a newer version.
			}
			all = append(all, r)
			return nil
		})
	}))
	slices.SortFunc(all, func(a, b Record) int { return cmp.Or(a.Accepted.Compare(b.Accepted), compareOrder(a, b)) })
	return all, unreadable, err
}

// Unfinished returns the records that are pending or running, but for those that
// it cannot read: container by container, PostStart first, each event's in the
// order of delivery, whatever the clock did between.
func (j *Journal) Unfinished() ([]Record, error) {
	var open []Record
	err := ignoreNoBucket(j.viewTop(func(top *bolt.Bucket) error {
		records := top.Bucket([]byte(recordsBucket))
		return top.Bucket([]byte(openBucket)).ForEach(func(k, _ []byte) error {
			r, err := readRecord(records, string(idOf(k)))
			if err != nil {
				return ignoreUnreadable(err)
			}
			open = append(open, r)
			return nil
		})
	}))
	slices.SortFunc(open, compareOrder)
	return open, err
}

func compareOrder(a, b Record) int {
	return cmp.Or(
		strings.Compare(a.Container, b.Container), slices.Index(events(), a.Event)-slices.Index(events(), b.Event),
		a.Position-b.Position, strings.Compare(a.ID, b.ID),
	)
}

// Container returns what is known of a container; false when that is nothing.
func (j *Journal) Container(id string) (Container, bool, error) {
	var c Container
	known := false
	err := ignoreNoBucket(j.view(containerBucket, func(b *bolt.Bucket) (err error) {
		raw := b.Get([]byte(id))
		if known = raw != nil; known {
			c, err = decodeContainer([]byte(id), raw)
		}
		return err
	}))
	return c, known && err == nil, err
}

// Containers returns all containers of which something is known.
func (j *Journal) Containers() ([]Container, error) {
	var all []Container
	err := ignoreNoBucket(j.view(containerBucket, func(b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			c, err := decodeContainer(k, v)
			if err != nil {
				return ignoreUnreadable(err)
			}
			all = append(all, c)
			return nil
		})
	}))
	return all, err
}

// Stats counts records.
type Stats struct {
	ByState map[State]int
	// Oldest is when the oldest unfinished record was accepted; zero without one.
	Oldest time.Time
}

// Stats counts the records. It reads the indexes only.
func (j *Journal) Stats() (Stats, error) {
	s := Stats{ByState: map[State]int{}}
	err := ignoreNoBucket(j.viewTop(func(top *bolt.Bucket) error {
		if k, _ := top.Bucket([]byte(openBucket)).Cursor().First(); k != nil {
			s.Oldest = timeOf(k)
		}
		count := func(_, v []byte) error {
			s.ByState[State(v)]++
			return nil
		}
		return errors.Join(top.Bucket([]byte(openBucket)).ForEach(count), top.Bucket([]byte(finishedBucket)).ForEach(count))
	}))
	return s, err
}

// errNoBucket says that nothing was ever written.
var errNoBucket = errors.New("the journal is empty")

func (j *Journal) viewTop(fn func(*bolt.Bucket) error) error {
	return j.store.View(func(tx *bolt.Tx) error {
		top := tx.Bucket([]byte(topBucket))
		if top == nil {
			return errNoBucket
		}
		return fn(top)
	})
}

func (j *Journal) view(bucket string, fn func(*bolt.Bucket) error) error {
	return j.viewTop(func(top *bolt.Bucket) error { return fn(top.Bucket([]byte(bucket))) })
}

func ignoreNoBucket(err error) error {
	if errors.Is(err, errNoBucket) {
		return nil
	}
	return err
}

func ignoreUnreadable(err error) error {
	if errors.Is(err, ErrUnreadable) {
		return nil
	}
	return err
}
