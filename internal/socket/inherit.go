package socket

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/activation"
)

// Inherited returns the listener that systemd has passed to this process, which
// must be a unix socket at path; nil when systemd passes none. It is systemd's: its
// mode is that of the socket's unit, and closing it leaves the file, with callers
// that wait until the next process accepts them. A second call finds nothing.
func Inherited(path string) (net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) == 0 {
		return nil, err
	}
	if err := fits(listeners, path); err != nil {
		for _, l := range listeners {
			if l != nil {
				err = errors.Join(err, l.Close())
			}
		}
		return nil, err
	}
	return listeners[0], nil
}

// fits returns why what systemd passes cannot be the one socket at path.
func fits(listeners []net.Listener, path string) error {
	if len(listeners) > 1 {
		return fmt.Errorf("systemd passes %d sockets, and one is needed: leave one ListenStream= in the socket's unit", len(listeners))
	}
	passed, ok := listeners[0].(*net.UnixListener)
	if !ok {
		return fmt.Errorf("systemd passes what is no unix socket to listen on: write ListenStream=%s in the socket's unit", path)
	}
	if at := passed.Addr().String(); filepath.Clean(at) != path {
		return fmt.Errorf("systemd passes the socket %s: write ListenStream=%s in the socket's unit, or configure that one", at, path)
	}
	return nil
}
