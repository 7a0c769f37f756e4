package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Tx is one commit in the making. It is valid inside of [Journal.Update] only.
type Tx struct {
	now                                 time.Time
	records, open, finished, containers *bolt.Bucket
	hasFinished                         bool
}

func openTx(b *bolt.Tx, now time.Time) (*Tx, error) {
	top, err := b.CreateBucketIfNotExists([]byte(topBucket))
	if err != nil {
		return nil, err
	}
	tx := &Tx{now: now}
	for name, bucket := range map[string]**bolt.Bucket{
		recordsBucket: &tx.records, openBucket: &tx.open, finishedBucket: &tx.finished, containerBucket: &tx.containers,
	} {
		if *bucket, err = top.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, err
		}
	}
	return tx, nil
}

// Put writes a record over the one with its id, if there is one. A record that
// is finished becomes nothing else, but for a failed one that is tried again.
// What Put refuses leaves no trace in the commit.
func (tx *Tx) Put(r Record) error {
	old, err := readRecord(tx.records, r.ID)
	isNew := errors.Is(err, ErrNotFound)
	switch {
	case isNew:
	case err != nil:
		return fmt.Errorf("record the hook: %w", err)
	case !old.State.MayBecome(r.State):
		return fmt.Errorf("hook %q is %s and cannot become %s", r.ID, old.State, r.State)
	}
	r, raw, err := tx.prepare(r)
	if err != nil {
		return fmt.Errorf("record hook %q: %w", r.ID, err)
	}
	if err := tx.records.Put([]byte(r.ID), raw); err != nil {
		return fmt.Errorf("record hook %q: %w", r.ID, err)
	}
	if isNew {
		return tx.index(r)
	}
	return errors.Join(tx.unindex(old), tx.index(r))
}

// prepare fills in times and returns the record as it will be read back: JSON
// has coarser time zones, and the indexes have to agree with it.
func (tx *Tx) prepare(r Record) (Record, []byte, error) {
	if r.Accepted.IsZero() {
		r.Accepted = tx.now
	}
	if !r.State.Finished() {
		r.Finished = time.Time{}
	} else if r.Finished.IsZero() {
		r.Finished = tx.now
	}
	if err := r.check(); err != nil {
		return r, nil, err
	}
	raw, err := encode(r)
	if err != nil {
		return r, nil, err
	}
	read, err := decodeRecord([]byte(r.ID), raw)
	return read, raw, err
}

// Get returns the record with an id as it stands in this commit.
func (tx *Tx) Get(id string) (Record, error) { return readRecord(tx.records, id) }

// Drop removes a record; an id that is not there is ignored.
func (tx *Tx) Drop(id string) error {
	old, err := readRecord(tx.records, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop the hook: %w", err)
	}
	return errors.Join(tx.unindex(old), tx.records.Delete([]byte(id)))
}

// PutContainer writes a container, all of it, over the one with its id: what is
// to stay is read with Container in the same commit. The deadline of a stop that
// stands there is never moved to a later time; a container without a stop ends it.
func (tx *Tx) PutContainer(c Container) error {
	old, known, err := tx.Container(c.ID)
	if err != nil {
		return fmt.Errorf("record container %q: %w", c.ID, err)
	}
	if known && old.Stop != nil && c.Stop != nil {
		stop := shorter(*old.Stop, *c.Stop)
		c.Stop = &stop
	}
	raw, err := encode(c)
	if err == nil {
		_, err = decodeContainer([]byte(c.ID), raw)
	}
	if err != nil {
		return fmt.Errorf("record container %q: %w", c.ID, err)
	}
	return tx.containers.Put([]byte(c.ID), raw)
}

// Container returns a container as it stands in this commit.
func (tx *Tx) Container(id string) (Container, bool, error) {
	raw := tx.containers.Get([]byte(id))
	if raw == nil {
		return Container{}, false, nil
	}
	c, err := decodeContainer([]byte(id), raw)
	return c, err == nil, err
}

// Shorten moves the deadline of a container's stop to an earlier time, and does
// nothing when there is no stop any more.
func (tx *Tx) Shorten(id string, to Stop) error {
	c, known, err := tx.Container(id)
	if err != nil || !known || c.Stop == nil {
		return err
	}
	c.Stop = &to
	return tx.PutContainer(c)
}

func shorter(a, b Stop) Stop {
	a.Asked, a.Chosen = min(a.Asked, b.Asked), a.Chosen || b.Chosen
	if b.Deadline.BootID != a.Deadline.BootID || b.Deadline.Boot < a.Deadline.Boot { // After a reboot the old one means nothing.
		a.Deadline = b.Deadline
	}
	return a
}

// Forget removes a container; an id that is not there is ignored.
func (tx *Tx) Forget(id string) error { return tx.containers.Delete([]byte(id)) }

func (tx *Tx) index(r Record) error {
	if !r.State.Finished() {
		return addTo(tx.open, indexKey(r.Accepted, r.ID), r.State)
	}
	tx.hasFinished = true
	return addTo(tx.finished, indexKey(r.Finished, r.ID), r.State)
}

func (tx *Tx) unindex(r Record) error {
	if !r.State.Finished() {
		return removeFrom(tx.open, indexKey(r.Accepted, r.ID))
	}
	return removeFrom(tx.finished, indexKey(r.Finished, r.ID))
}

// addTo and removeFrom keep the sequence of an index at the number of its keys,
// whatever is in the records: a wrong number would prune too much.
func addTo(index *bolt.Bucket, key []byte, s State) error {
	if index.Get(key) == nil {
		if err := index.SetSequence(index.Sequence() + 1); err != nil {
			return err
		}
	}
	return index.Put(key, []byte(s))
}

func removeFrom(index *bolt.Bucket, key []byte) error {
	if index.Get(key) == nil {
		return nil
	}
	return errors.Join(index.SetSequence(index.Sequence()-1), index.Delete(key))
}

// prune removes finished records that are too old, or older than the newest
// [KeepMost]. One that it cannot read stays, and is looked at each time.
func (tx *Tx) prune() error {
	if !tx.hasFinished {
		return nil
	}
	oldest := indexKey(tx.now.Add(-KeepFor), "")
	var drop []string
	c, left := tx.finished.Cursor(), tx.finished.Sequence()
	for k, _ := c.First(); k != nil && (left > KeepMost || bytes.Compare(k, oldest) < 0); k, _ = c.Next() {
		if _, err := readRecord(tx.records, string(idOf(k))); err == nil {
			drop = append(drop, string(idOf(k)))
		}
		left--
	}
	for _, id := range drop {
		if err := tx.Drop(id); err != nil {
			return err
		}
	}
	return nil
}

// An index's key is the time in microseconds, which no year of JSON overflows,
// and the id. With the sign turned, what is before 1970 sorts first: a machine
// without a battery starts there.
const signBit = 1 << 63

func indexKey(at time.Time, id string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())^signBit), id...)
}

func idOf(key []byte) []byte { return key[min(8, len(key)):] }

func timeOf(key []byte) time.Time {
	if len(key) < 8 {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(key) ^ signBit))
}
