package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func listen(t *testing.T, path string, mode os.FileMode) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// stale leaves a socket behind as a process does that was killed.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, path string) bool {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	return err == nil && conn.Close() == nil
}

func TestListenModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o600, 0o660, 0o666} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(shortDir(t), "new", "dir", "x.sock")
			l := listen(t, path, mode)
			info, err := os.Stat(path)
			if err != nil || info.Mode() != os.ModeSocket|mode {
				t.Errorf("the socket has mode %v, want %v (%v)", info.Mode(), mode, err)
			}
			dir, err := os.Stat(filepath.Dir(path))
			if err != nil || dir.Mode().Perm() != dirMode {
				t.Errorf("the directory has mode %v, want %o (%v)", dir.Mode(), dirMode, err)
			}
			if l.Addr().String() != path || !answers(t, path) {
				t.Errorf("nobody answers on %s (address %s)", path, l.Addr())
			}
		})
	}
}

// The mode has to be right at the bind itself: before Listen widens it to what
// was asked, the kernel must have made it no wider than that.
func TestBindNeverOpensWider(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "x.sock")
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return narrow(c, 0o600) }}
	l, err := config.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&^0o600 != 0 {
		t.Errorf("right after the bind the mode is %v (%v)", info.Mode(), err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "x.sock")
	stale(t, path)
	listen(t, path, 0o600)
	if !answers(t, path) {
		t.Error("the stale socket was not replaced")
	}
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	join := func(name string) string { return filepath.Join(dir, name) }
	listen(t, join("live"), 0o600)
	datagram, err := new(net.ListenConfig).ListenPacket(t.Context(), "unixgram", join("datagram"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := datagram.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.WriteFile(join("file"), []byte("keep"), 0o600), os.Mkdir(join("dir"), 0o700),
		os.Symlink(join("live"), join("link"))); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		inUse      bool
		want       string
	}{
		{"live", join("live"), true, join("live")},
		{"another type of socket", join("datagram"), true, join("datagram")},
		{"a file", join("file"), false, "not a socket"},
		{"a directory", join("dir"), false, "not a socket"},
		{"a symbolic link", join("link"), false, "not a socket"},
		{"below a file", join("file/x"), false, "not a directory"},
		{"relative", "x.sock", false, "not absolute"},
		{"abstract", "@x", false, "not absolute"},
		{"too long", join(strings.Repeat("x", 107-len(dir))), false, "has 108 bytes, and the kernel takes 107"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before, statErr := os.Lstat(tt.path)
			_, err := Listen(t.Context(), tt.path, 0o600)
			if err == nil || errors.Is(err, ErrInUse) != tt.inUse || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Listen: %v, want %q, in use: %v", err, tt.want, tt.inUse)
			}
			if after, err := os.Lstat(tt.path); statErr == nil && (err != nil || !os.SameFile(before, after)) {
				t.Errorf("what stood there was touched: %v", err)
			}
		})
	}
}

func TestLongestPath(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	listen(t, path, 0o600)
	if len(path) != maxPath || !answers(t, path) {
		t.Errorf("nobody answers on a path of %d bytes", len(path))
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "x.sock")
	first := listen(t, path, 0o600)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := listen(t, path, 0o600)
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !answers(t, path) {
		t.Error("closing the first listener took the second one's socket away")
	}
	if err := second.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// Of several that start at once on a stale socket one gets it, and the others
// are refused instead of taking it away.
func TestOneOfManyGetsTheSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "x.sock")
	stale(t, path)
	got := make(chan net.Listener, 8)
	var group errgroup.Group
	for range cap(got) {
		group.Go(func() error {
			l, err := Listen(t.Context(), path, 0o600)
			if errors.Is(err, ErrInUse) {
				return nil
			}
			if err == nil {
				got <- l
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !answers(t, path) {
		t.Errorf("%d listeners, want 1 that answers", len(got))
	}
	close(got)
	for l := range got {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
