package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// disk is the state file's, which fails when a test wants it to.
type disk struct {
	name string
	// fails is the point of an update that gives an error; "" leaves it to full.
	fails  state.Point
	isFull bool // It is a file system of its own, without space.

	dir   string
	log   logBuffer    // The daemon's, and its state:
	store *state.Store //

	mu     sync.Mutex
	broken bool
}

var errDisk = errors.New("the test's disk fails")

// disks are the ways to fail, for one test. Without root there is one less, which is said.
func disks(t *testing.T) []*disk {
	t.Helper()
	all := []*disk{
		{name: "nothing is written", fails: state.BeforeCommit},
		{name: "written, and an error all the same", fails: state.AfterCommit},
	}
	if os.Geteuid() != 0 {
		t.Log("LEFT OUT: the full disk; only root can mount a small file system")
		return all
	}
	return append(all, &disk{name: "full", isFull: true})
}

// mount puts the daemon's state on the disk before the daemon runs.
func (d *disk) mount(p *proxy) {
	p.t.Helper()
	d.store = p.daemon.store
	if d.isFull {
		return // That has to be there before the daemon; see hookedOn.
	}
	if err := p.daemon.store.Close(); err != nil {
		p.t.Fatal(err)
	}
	store, err := state.Open(p.t.Context(), state.Options{Dir: p.daemon.cfg.State.Dir, Log: p.log, Fault: d.fault})
	if err != nil {
		p.t.Fatal(err)
	}
	*p.daemon.store = *store
}

func (d *disk) fault(p state.Point) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken && p == d.fails {
		return errDisk
	}
	return nil
}

// strike makes the disk fail, and heal ends that.
func (d *disk) strike(t *testing.T) {
	t.Helper()
	d.set(true)
	if !d.isFull {
		return
	}
	f, err := os.Create(d.ballast())
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if closeErr := f.Close(); closeErr != nil || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err, closeErr)
	}
	for size := 64 << 10; size > 0; size /= 4 {
		d.useUp(t, size)
	}
}

func (d *disk) heal(t *testing.T) {
	t.Helper()
	d.set(false)
	if err := os.Remove(d.ballast()); d.isFull && err != nil {
		t.Fatal(err)
	}
}

func (d *disk) set(broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// useUp writes into the state file until that fails: it has free pages, which it
// would fill before it grows.
func (d *disk) useUp(t *testing.T, size int) {
	t.Helper()
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = d.store.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("ballast"))
			if err != nil {
				return err
			}
			return b.Put(fmt.Appendf(nil, "%d of %d", i, size), make([]byte, size))
		})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a full disk gives %v", err)
	}
}

// hookedOn is hooked with its state on the disk. Each record is large, so that a
// full disk has no free page left for it.
func hookedOn(t *testing.T, d *disk, r *receiver, event string) (*proxy, *fakeruntime.Runtime) {
	t.Helper()
	large := `headers = [{ name = "X-Large", value = "` + strings.Repeat("x", 50_000) + `" }]`
	p, alpha := hooked(t, hook(event, strings.Replace(r.action(), "http_get = {", "http_get = { "+large+",", 1), `timeout = "1m"`))
	p.stop()
	p.disk = d
	logger := logrus.New()
	logger.SetOutput(&d.log)
	p.log = logrus.NewEntry(logger)
	if d.isFull {
		d.dir = filepath.Join(p.dir, "state")
		mountSmall(t, d.dir, p.stop)
	}
	p.start()
	return p, alpha
}

// mountSmall mounts a file system of a mebibyte until the end of the test. What
// uses it is ended before.
func mountSmall(t *testing.T, dir string, end func()) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "size=1m"); err != nil {
		t.Fatal(err)
	}
}

// overDisks runs a test for each way in which a disk fails, and each case of its own.
func overDisks(t *testing.T, cases []string, test func(t *testing.T, d *disk, name string)) {
	t.Helper()
	for _, name := range cases {
		for _, d := range disks(t) {
			t.Run(d.name+", "+name, func(t *testing.T) {
				t.Parallel()
				test(t, d, name)
			})
		}
	}
}

// felt fails the test if the daemon did not notice that the disk failed: nothing
// would be shown.
func (d *disk) felt(t *testing.T) {
	t.Helper()
	if !strings.Contains(d.log.String(), "cannot be recorded") {
		t.Errorf("the disk failed, and all was recorded:\n%s", d.log.String())
	}
}

// settled waits until nothing is under way or left to be recorded.
func (p *proxy) settled() {
	p.t.Helper()
	eventually(p.t, "all hooks are finished, in the journal as well", func() bool {
		for _, e := range p.deliveries() {
			if !e.State.Finished() {
				return false
			}
		}
		known, err := journal.New(p.daemon.store, nil).Containers()
		return err == nil && len(known) == 0 && !p.daemon.hooks.IsBusy()
	})
}
