package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

func TestRecordsSurviveAReopen(t *testing.T) {
	t.Parallel()
	o := options(filepath.Join(t.TempDir(), "var", "state"))
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	h := SandboxHandlers(s)
	for key, handler := range map[string]string{"a/0": "runc", "a/1": "gvisor", "b/0": "runc"} {
		if err := h.Put(key, handler); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(h.Put("b/0", "kata"), h.Delete("a/0", "unknown"), s.Close()); err != nil {
		t.Fatal(err)
	}

	again := open(t, o)
	got, err := SandboxHandlers(again).All()
	if diff := cmp.Diff(map[string]string{"a/1": "gvisor", "b/0": "kata"}, got); diff != "" || err != nil {
		t.Errorf("after a reopen (-want +got):\n%s%v", diff, err)
	}
	if again.ResetFrom() != "" {
		t.Errorf("a sound file was set aside as %s", again.ResetFrom())
	}
	for path, want := range map[string]os.FileMode{o.Dir: 0o700, again.Path(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, info.Mode().Perm(), want, err)
		}
	}
}

// A commit costs two flushes of the disk; what changes nothing must not pay.
func TestHandlersWriteOnlyChanges(t *testing.T) {
	t.Parallel()
	o, commits := options(t.TempDir()), 0
	o.Fault = func(p Point) error {
		if p == AfterCommit {
			commits++
		}
		return nil
	}
	h := SandboxHandlers(open(t, o))
	steps := []struct {
		name string
		do   func() error
		want int
	}{
		{"delete in an empty file", func() error { return h.Delete("a/0") }, 0},
		{"put", func() error { return h.Put("a/0", "runc") }, 1},
		{"put the same", func() error { return h.Put("a/0", "runc") }, 1},
		{"put an empty handler", func() error { return h.Put("b/0", "") }, 2},
		{"put the same empty handler", func() error { return h.Put("b/0", "") }, 2},
		{"put several", func() error { return h.PutAll(map[string]string{"a/0": "runc", "c/0": "kata", "d/0": "kata"}) }, 3},
		{"put several that are there", func() error { return h.PutAll(map[string]string{"a/0": "runc", "d/0": "kata"}) }, 3},
		{"put none", func() error { return h.PutAll(nil) }, 3},
		{"delete two of them", func() error { return h.Delete("c/0", "d/0") }, 4},
		{"delete what is not there", func() error { return h.Delete("c/0") }, 4},
		{"delete nothing", func() error { return h.Delete() }, 4},
		{"delete several", func() error { return h.Delete("a/0", "b/0", "c/0") }, 5},
	}
	for _, s := range steps {
		if err := s.do(); err != nil || commits != s.want {
			t.Errorf("%s: %d commits, want %d (%v)", s.name, commits, s.want, err)
		}
	}
	if all, err := h.All(); err != nil || len(all) != 0 {
		t.Errorf("left over: %v (%v)", all, err)
	}
}

func TestUpdateReportsFaults(t *testing.T) {
	t.Parallel()
	fault := errors.New("the disk says no")
	for point, wantWritten := range map[Point]bool{BeforeCommit: false, AfterCommit: true} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir())
			o.Fault = func(p Point) error {
				if p == point {
					return fault
				}
				return nil
			}
			s := open(t, o)
			err := SandboxHandlers(s).Put("a/0", "runc")
			if !errors.Is(err, fault) || !strings.Contains(err.Error(), s.Path()) {
				t.Errorf("Put: %v, want the fault and the path", err)
			}
			all, err := SandboxHandlers(s).All()
			if _, written := all["a/0"]; written != wantWritten || err != nil {
				t.Errorf("written: %v, want %v (%v)", written, wantWritten, err)
			}
		})
	}
}

// The caller's own error decides in the caller; it must come back untouched.
func TestUpdateReturnsTheErrorOfTheFunction(t *testing.T) {
	t.Parallel()
	s, own := open(t, options(t.TempDir())), errors.New("own")
	err := s.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("b"))
		return errors.Join(err, own)
	})
	if err == nil || err.Error() != own.Error() {
		t.Errorf("Update: %v, want %v", err, own)
	}
	err = s.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte("b")) != nil {
			t.Error("the transaction was not rolled back")
		}
		return own
	})
	if !errors.Is(err, own) {
		t.Errorf("View: %v, want %v", err, own)
	}
}

func TestLockedFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"sound": "", "damaged": "not a database"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir())
			path := filepath.Join(o.Dir, fileName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			owner := &Store{options: o, path: path}
			f, err := owner.lock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()

			_, err = Open(t.Context(), o)
			if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v, want ErrLocked with the path", err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != content {
				t.Errorf("the locked file is now %q (%v)", got, err)
			}
		})
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.LockTimeout = time.Hour
	open(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: %v, want %v", err, context.DeadlineExceeded)
	}
}

// All start at once on a damaged file: it is set aside once, and nobody sets
// aside what another one has already written.
func TestConcurrentOpensSetAsideOnce(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.LockTimeout = time.Minute
	if err := os.WriteFile(filepath.Join(o.Dir, fileName), []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for _, key := range []string{"a/0", "b/0", "c/0", "d/0", "e/0", "f/0"} {
		group.Go(func() error {
			s, err := Open(t.Context(), o)
			if err != nil {
				return err
			}
			return errors.Join(SandboxHandlers(s).Put(key, "runc"), s.Close())
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all, err := SandboxHandlers(open(t, o)).All()
	aside, globErr := filepath.Glob(filepath.Join(o.Dir, fileName+".corrupt-*"))
	if len(all) != 6 || len(aside) != 1 || err != nil || globErr != nil {
		t.Errorf("%d records in the file, want 6; set aside: %v (%v)", len(all), aside, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notADir := filepath.Join(dir, "file")
	if err := os.WriteFile(notADir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "taken", fileName), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir, want string
	}{
		{"a directory under a file", filepath.Join(notADir, "x"), "not a directory"},
		{"a directory in the file's place", filepath.Join(dir, "taken"), "is a directory"},
		{"no directory", "", "need a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Open(t.Context(), options(tt.dir)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v, want %q", err, tt.want)
			}
		})
	}
}
