package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	fileName  = "state.db"
	fileMode  = 0o600
	lockRetry = 20 * time.Millisecond
)

// Open opens or creates the state file. While another process has it, Open
// tries again until ctx or the lock time-out ends, and then returns ErrLocked.
// A damaged file is set aside as state.db.corrupt-<time> and an empty one is
// opened; ResetFrom tells. A disk that is full, read-only or broken is an error.
func Open(ctx context.Context, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w%s", err, hint(err))
	}
	s := &Store{options: o, path: filepath.Join(o.Dir, fileName), writes: &writes{}}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("open the state file %s: %w%s", s.path, err, hint(err))
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	f, err := s.lock(ctx)
	if err != nil {
		return err
	}
	err = s.use(f)
	if _, isDamage := errors.AsType[damage](err); !isDamage {
		return err
	}
	// The lock is held over the renaming: whoever waits for it then finds that
	// the name belongs to another file, and does not set that one aside.
	reason := err
	err = s.setAside()
	if closeErr := f.Close(); err != nil || closeErr != nil {
		return errors.Join(err, closeErr)
	}
	s.options.Log.WithError(reason).WithFields(map[string]any{"file": s.path, "kept_as": s.resetFrom}).
		Error("The state file is damaged: it is kept under a new name and an empty one takes its place. " +
			"Routes are rebuilt from the runtimes; hooks that were pending are lost.")
	if f, err = s.lock(ctx); err != nil {
		return err
	}
	return s.use(f)
}

// lock opens the file and takes its lock. bbolt's own lock would come too late:
// the file has to be locked while it is verified and renamed.
func (s *Store) lock(ctx context.Context) (*os.File, error) {
	deadline := time.After(s.options.LockTimeout)
	for {
		f, err := s.tryLock()
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-deadline:
			return nil, fmt.Errorf("%w: another cri-proxy uses this state directory; "+
				"stop it, or give this one its own [state].dir", ErrLocked)
		case <-time.After(lockRetry):
		}
	}
}

// tryLock returns the locked file, or nil when somebody else has the lock.
func (s *Store) tryLock() (*os.File, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	ours, err := takeLock(f, s.path)
	if err != nil || !ours {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// takeLock is true when f is locked and still the file at path: its last owner
// may have renamed it while we waited.
func takeLock(f *os.File, path string) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock: %w", err)
	}
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !opened.Mode().IsRegular() {
		return false, fmt.Errorf("it is not a regular file but %s; move it away", opened.Mode())
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return os.SameFile(opened, named), err
}

// use hands the locked file to bbolt. A damaged file stays open and locked; on
// any other error it is closed.
func (s *Store) use(f *os.File) error {
	err := s.prepare(f)
	if err == nil {
		s.db, err = openBolt(f, s.path)
	}
	if _, isDamage := errors.AsType[damage](err); err == nil || isDamage {
		return err
	}
	if closeErr := f.Close(); !errors.Is(closeErr, os.ErrClosed) { // bbolt may have closed it
		err = errors.Join(err, closeErr)
	}
	return err
}

// prepare makes sure of the mode, of a new name after a power failure (bbolt
// flushes the file only, and the directory may be new as well), and that bbolt can read every page.
func (s *Store) prepare(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm() != fileMode {
		if err := f.Chmod(fileMode); err != nil {
			return err
		}
	}
	if info.Size() == 0 {
		return errors.Join(syncDir(s.options.Dir), syncDir(filepath.Dir(s.options.Dir)))
	}
	return verify(f, info.Size())
}

// openBolt gives bbolt the file that we have locked: a second lock on the same
// open file succeeds at once. Should bbolt stumble over a page that verify let
// through, by a panic or a memory fault, that is damage as well.
func openBolt(f *os.File, path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, damagef("bbolt: %v", r)
		}
	}()
	locked := func(string, int, os.FileMode) (*os.File, error) { return f, nil }
	return bolt.Open(path, fileMode, &bolt.Options{Timeout: time.Second, OpenFile: locked})
}

// setAside gives the file a name that nothing else has.
func (s *Store) setAside() error {
	aside := s.path + ".corrupt-" + s.options.Now().UTC().Format("20060102T150405.000000000Z")
	if _, err := os.Lstat(aside); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set the damaged file aside: %s exists already", aside)
	}
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("set the damaged file aside: %w", err)
	}
	s.resetFrom = aside
	return syncDir(s.options.Dir)
}

// hint says what to do about an error of the disk.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return " (free some space on this file system)"
	case errors.Is(err, syscall.EROFS):
		return " (the file system is read-only: remount it, or set [state].dir to a writable directory)"
	case errors.Is(err, os.ErrPermission):
		return " (cri-proxy runs as root and needs to write there, or set [state].dir)"
	}
	return ""
}
