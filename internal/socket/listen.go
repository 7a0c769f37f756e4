package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// maxPath is what fits into sockaddr_un, with its final zero byte.
	maxPath = 107

	dirMode    = 0o755
	dialLimit  = time.Second
	guardLimit = 5 * time.Second
	guardRetry = 10 * time.Millisecond
)

// ErrInUse is wrapped by the error of Listen when a process answers, or may
// answer, on the socket.
var ErrInUse = errors.New("another process is listening on it")

// Listen listens on a unix socket with exactly this mode, in a directory that
// is created with 0755 if it is missing. path is absolute and has at most 107
// bytes. A stale socket is replaced; a live one is ErrInUse, and any other file
// in its place is refused. ctx ends the wait for another process that starts on
// the same directory; it does not end the listener.
func Listen(ctx context.Context, path string, mode os.FileMode) (net.Listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("create the directory of socket %s: %w", path, err)
	}
	release, err := guard(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := replace(ctx, path, mode)
	if err := errors.Join(err, release()); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("socket path %q is not absolute: it has to begin with /", path)
	}
	if len(path) > maxPath {
		return fmt.Errorf("socket path %s has %d bytes, and the kernel takes %d: choose a shorter one", path, len(path), maxPath)
	}
	return nil
}

// guard keeps other processes that use this package out of a directory, so that
// of two that find the same stale socket one removes it and the other finds the
// new one alive. It locks the directory itself, which leaves no file behind.
func guard(ctx context.Context, dir string) (release func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, guardLimit)
	defer cancel()
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return d.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock directory %s: %w", dir, err), d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process has locked directory %s: %w", dir, ctx.Err()), d.Close())
		case <-time.After(guardRetry):
		}
	}
}

// replace makes way at path and binds.
func replace(ctx context.Context, path string, mode os.FileMode) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return narrow(c, mode) }}
	bound, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	unix, ok := bound.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("got a %T", bound), bound.Close())
	}
	unix.SetUnlinkOnClose(false)
	// The umask may have narrowed the mode further; this gives back the rest.
	err = os.Chmod(path, mode)
	info, statErr := os.Lstat(path)
	if err := errors.Join(err, statErr); err != nil {
		return nil, errors.Join(err, unix.Close())
	}
	return &listener{UnixListener: unix, path: path, info: info}, nil
}

// narrow sets the mode before the socket has a name: Linux gives the name the
// mode of the unbound socket, less the umask. So there is no instant at which it
// is open to everybody, and the umask, which belongs to all goroutines of the
// process, is left alone.
func narrow(c syscall.RawConn, mode os.FileMode) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(mode.Perm())) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// removeStale removes a socket that nobody listens on, and refuses anything else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("there is a file that is not a socket (%s): move it away or choose another path", info.Mode())
	}
	dialer := net.Dialer{Timeout: dialLimit}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(inUse(), conn.Close())
	}
	// Only a refused connection proves that nobody is there. A full backlog, a
	// time-out or a socket of another type do not.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (%w)", inUse(), err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

func inUse() error {
	return fmt.Errorf("%w: stop that process (ss -xlp names it) or choose another path", ErrInUse)
}

// listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
	info os.FileInfo
	once sync.Once
	err  error
}

// Close stops listening. The socket is removed first, while our open listener
// still keeps its inode from being given to another socket, so that the
// comparison cannot be fooled. Further calls return the first one's error.
func (l *listener) Close() error {
	l.once.Do(func() { l.err = errors.Join(l.removeOurs(), l.UnixListener.Close()) })
	return l.err
}

func (l *listener) removeOurs() error {
	info, err := os.Lstat(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !os.SameFile(info, l.info) {
		return err
	}
	return os.Remove(l.path)
}
