package state

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
)

// DefaultLockTimeout is how long Open waits for another process to let go of
// the file: enough for a predecessor that is on its way out.
const DefaultLockTimeout = 2 * time.Second

// ErrLocked is wrapped by the error of Open when another process has the file.
var ErrLocked = errors.New("locked by another process")

// errUnwritten is for an Update whose commit was begun by one that panicked.
var errUnwritten = errors.New("another update panicked, and nothing was written")

// Point is a moment of Update at which a test can inject a fault.
type Point string

// The points of an Update, in order.
const (
	BeforeCommit Point = "before-commit" // an error rolls the transaction back: nothing is written
	AfterCommit  Point = "after-commit"  // the records are on disk, and Update reports the error all the same
)

// Options is what a Store needs. Dir and Log are required.
type Options struct {
	Dir         string           // created with mode 0700 if it is missing
	LockTimeout time.Duration    // 0 means DefaultLockTimeout
	Log         *logrus.Entry    // told about a file that was set aside
	Now         func() time.Time // names the file that is set aside; nil means time.Now

	// Fault is for tests and nil in production: an error makes the Update fail
	// at that point.
	Fault func(Point) error
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" || o.Log == nil {
		return o, errors.New("open the state: the options need a directory and a logger")
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

// Store is the open state file. It is safe for concurrent use.
type Store struct {
	options   Options
	db        *bolt.DB
	path      string
	resetFrom string
	writes    *writes
}

// writes are the Updates that wait for their commit.
type writes struct {
	commit sync.Mutex // Whoever has it commits all that waits.
	mu     sync.Mutex
	queue  []*write
}

// write is one of them. Whoever has writes.commit sets the rest of it.
type write struct {
	fn   func(*bolt.Tx) error
	done bool
	err  error
}

// Path returns the path of the state file.
func (s *Store) Path() string { return s.path }

// ResetFrom returns the path under which Open set a damaged file aside, or ""
// when the file was sound. The records in it are lost to this process.
func (s *Store) ResetFrom() string { return s.resetFrom }

// View runs fn on a snapshot. Keys and values are valid only inside fn.
func (s *Store) View(fn func(*bolt.Tx) error) error {
	return s.db.View(fn)
}

// Update runs fn in a write transaction, one at a time, and commits it. After
// nil the changes are on disk. The error of fn undoes its changes and is returned
// as it is. After any other error the changes may or may not be on disk; the next
// View tells.
//
// Updates that come while another one is committed share one commit, so that a
// slow disk is waited for a few times and not a thousand. (bbolt's own Batch makes
// each one wait for company.) When one of them fails the others run again, so fn
// may run several times; the last run counts.
func (s *Store) Update(fn func(*bolt.Tx) error) error {
	w := &write{fn: fn, err: errUnwritten}
	s.writes.add(w)
	s.writes.commit.Lock()
	defer s.writes.commit.Unlock()
	if !w.done {
		s.writeAll(s.writes.take())
	}
	return w.err
}

func (q *writes) add(w *write) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, w)
}

func (q *writes) take() []*write {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.queue
	q.queue = nil
	return all
}

// writeAll commits writes together, but for those whose fn fails.
func (s *Store) writeAll(all []*write) {
	for len(all) > 0 {
		failed, err := s.writeOnce(all)
		if failed == nil {
			for _, w := range all {
				w.done, w.err = true, err
			}
			return
		}
		failed.done, failed.err = true, err
		all = slices.DeleteFunc(all, func(w *write) bool { return w.done })
	}
}

// writeOnce returns the write whose fn has failed, with its error; then nothing
// was written. Another error is that of the commit.
func (s *Store) writeOnce(all []*write) (failed *write, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, w := range all {
			if err := w.fn(tx); err != nil {
				failed = w
				return err
			}
		}
		return s.fault(BeforeCommit)
	})
	if failed != nil {
		return failed, err
	}
	if err == nil {
		err = s.fault(AfterCommit)
	}
	if err != nil {
		err = fmt.Errorf("write the state file %s: %w%s", s.path, err, hint(err))
	}
	return nil, err
}

func (s *Store) fault(p Point) error {
	if s.options.Fault == nil {
		return nil
	}
	return s.options.Fault(p)
}

// Close waits for the running transactions and lets go of the file.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the state file %s: %w", s.path, err)
	}
	return nil
}

// syncDir flushes a directory, so that a name in it survives a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
