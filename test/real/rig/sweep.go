package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is a file that a living rig holds a lock on.
const lockName = "lock"

// hold marks the rig as alive. The kernel takes the mark away with the process,
// however that ends. The file gets its name only when it is locked: a sweep at
// that moment would take the rig for a dead one.
func (r *Rig) hold() (err error) {
	name := filepath.Join(r.Dir, lockName)
	if r.lock, err = os.Create(name + ".new"); err != nil {
		return err
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Sweep removes what rigs left behind whose process was killed: all that names
// their folder, and nothing else.
func Sweep(ctx context.Context) error {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*", lockName))
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range locks {
		problems = append(problems, sweep(ctx, name))
	}
	return errors.Join(problems...)
}

func sweep(ctx context.Context, name string) error {
	lock, err := os.Open(name)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return lock.Close() // It lives.
	}
	r := &Rig{Dir: filepath.Dir(name)}
	// The lock is given up after the folder is gone: two sweeps must not meet.
	return errors.Join(r.end(ctx), r.clean(ctx), lock.Close())
}

// end kills the processes that name the rig's folder in their command line.
func (r *Rig) end(ctx context.Context) error {
	pids, err := processes(func(arguments []string) bool {
		for _, argument := range arguments {
			if strings.HasPrefix(argument, r.Dir+"/") {
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	return killAll(ctx, pids)
}

// clean removes what no process of ours needs any more.
func (r *Rig) clean(ctx context.Context) error {
	problems := []error{r.removeCgroups(ctx), unmountBelow(r.Dir), r.removeResults(), r.removeLogLinks()}
	links, err := net.Interfaces()
	problems = append(problems, err)
	for _, link := range links {
		if name := link.Name; strings.HasPrefix(name, prefix+r.id()) && len(name) == len(prefix+r.id())+1 {
			problems = append(problems, removeLink(ctx, name))
		}
	}
	// A folder with something mounted in it is not removed: that would empty the mount.
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("clean %s: %w", r.Dir, err)
	}
	return os.RemoveAll(r.Dir)
}

// removeResults removes what CNI remembers of networks that it was not asked to
// take down, because their containerd was killed. Its folder cannot be chosen.
func (r *Rig) removeResults() error {
	files, err := filepath.Glob("/var/lib/cni/results/" + prefix + r.id() + "[a-z]-*")
	problems := []error{err}
	for _, file := range files {
		problems = append(problems, os.Remove(file))
	}
	return errors.Join(problems...)
}
