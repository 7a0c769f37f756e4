package state

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
)

// DefaultLockTimeout is how long Open waits for another process to let go of
// the file: enough for a predecessor that is on its way out.
const DefaultLockTimeout = 2 * time.Second

// ErrLocked is wrapped by the error of Open when another process has the file.
var ErrLocked = errors.New("locked by another process")

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
// nil the changes are on disk. The error of fn rolls the transaction back and
// is returned as it is. After any other error the changes may or may not be on
// disk; the next View tells.
func (s *Store) Update(fn func(*bolt.Tx) error) error {
	var fnErr error
	err := s.db.Update(func(tx *bolt.Tx) error {
		if fnErr = fn(tx); fnErr != nil {
			return fnErr
		}
		return s.fault(BeforeCommit)
	})
	if fnErr != nil {
		return fnErr
	}
	if err == nil {
		err = s.fault(AfterCommit)
	}
	if err != nil {
		return fmt.Errorf("write the state file %s: %w%s", s.path, err, hint(err))
	}
	return nil
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
