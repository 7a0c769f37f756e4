package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

// nobody is the user of a process that must not be root.
const nobody = 65534

// refusal is what is not as it should be, and what is said of it.
type refusal struct {
	prepare func(*node) (undo func())
	want    []string
}

func refusals() map[string]refusal {
	return map[string]refusal{
		"another program on the CRI socket": {
			listening("s"),
			[]string{"server.listen: listen on ", "/s: another process is listening on it: stop that process (ss -xlp names it) or choose another path"},
		},
		"another program on the admin socket": {
			listening("a"),
			[]string{"[admin]: admin socket: listen on ", "/a: another process is listening on it: stop that process (ss -xlp names it) or choose another path"},
		},
		"a file in place of the CRI socket": {
			occupied("s"),
			[]string{"server.listen: ", "there is a file that is not a socket (-rw-------): move it away or choose another path"},
		},
		"a file in place of the admin socket": {
			occupied("a"),
			[]string{"[admin]: ", "there is a file that is not a socket (-rw-------): move it away or choose another path"},
		},
		"a file in place of the state directory": {
			occupied("state"),
			[]string{"state.dir: ", "/state: not a directory"},
		},
		"the state locked": {
			func(n *node) func() {
				s, err := state.Open(n.t.Context(), state.Options{Dir: n.path("state"), Log: quiet()})
				if err != nil {
					n.t.Fatal(err)
				}
				return func() { closeOf(n.t, s.Close) }
			},
			[]string{"state.dir: ", "another cri-proxy uses this state directory; stop it, or give this one its own [state].dir"},
		},
		"the same cri-proxy twice": {
			func(n *node) func() {
				first := n.start()
				first.serving()
				return func() { first.stop() }
			},
			[]string{"state.dir: ", "another cri-proxy uses this state directory; stop it"},
		},
		"another cri-proxy on the CRI socket": {
			func(n *node) func() {
				other := newNode(n.t, alpha(n.t), `server.listen = "`+n.path("s")+`"`)
				first := other.start()
				first.serving()
				return func() { first.stop() }
			},
			[]string{"server.listen: ", "another process is listening on it: stop that process"},
		},
	}
}

func listening(name string) func(*node) func() {
	return func(n *node) func() {
		l, err := new(net.ListenConfig).Listen(n.t.Context(), "unix", n.path(name))
		if err != nil {
			n.t.Fatal(err)
		}
		return func() { closeOf(n.t, l.Close) }
	}
}

func occupied(name string) func(*node) func() {
	return func(n *node) func() {
		if err := os.WriteFile(n.path(name), nil, 0o600); err != nil {
			n.t.Fatal(err)
		}
		return func() { closeOf(n.t, func() error { return os.Remove(n.path(name)) }) }
	}
}

// TestRefusedStart: what the machine does not give makes run end with a
// message that says what to do, and leave nothing behind: as soon as the cause
// is gone the start succeeds.
func TestRefusedStart(t *testing.T) {
	t.Parallel()
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, alpha(t))
			undo := c.prepare(n)
			got := n.start().refused()
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("said %q, want %q", got, want)
				}
			}
			undo()
			p := n.start()
			p.serving()
			p.stop()
		})
	}
}

// TestMetricsAddressTaken: as TestRefusedStart, for a TCP port.
func TestMetricsAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, alpha(t), fmt.Sprintf("admin.metrics_listen = %q", l.Addr()))
	if got := n.start().refused(); !strings.Contains(got, "[admin]: metrics address "+l.Addr().String()) || !strings.Contains(got, "address already in use") {
		t.Errorf("said %q", got)
	}
	closeOf(t, l.Close)
	p := n.start()
	p.serving()
	p.stop()
}

// TestStateNotWritable: for a user who may not write there.
func TestStateNotWritable(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t))
	if err := errors.Join(os.Chmod(n.dir, 0o755), os.Chmod(n.path("c.toml"), 0o644), os.Mkdir(n.path("state"), 0o555)); err != nil { //nolint:gosec // For another user.
		t.Fatal(err)
	}
	p := n.start(func(c *exec.Cmd) {
		if os.Getuid() == 0 {
			c.Path = "/proc/self/exe" // The binary's own folder is closed to others.
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
	})
	got := p.refused()
	if !strings.Contains(got, "state.dir: ") || !strings.Contains(got, "permission denied") || !strings.Contains(got, "or set [state].dir") {
		t.Errorf("said %q", got)
	}
}

// TestCorruptState: a state file that is not one is set aside, the proxy
// serves, and says so wherever an operator looks.
func TestCorruptState(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t))
	if err := os.Mkdir(n.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte("not a database. "), 4096)
	if err := os.WriteFile(n.path("state/state.db"), garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	p := n.start()
	p.serving()
	aside, err := filepath.Glob(n.path("state/state.db.corrupt-*"))
	if err != nil || len(aside) != 1 {
		t.Fatalf("set aside: %q, %v", aside, err)
	}
	if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, garbage) {
		t.Errorf("the file that was set aside is another: %v", err)
	}
	if !strings.Contains(p.log.String(), "level=error") || !strings.Contains(p.log.String(), aside[0]) {
		t.Errorf("the log does not say it")
	}
	if got := scrape(t, n.path("a"))["cri_proxy_state_reset_total"]; got != 1 {
		t.Errorf("cri_proxy_state_reset_total is %v, want 1", got)
	}
	var out bytes.Buffer
	if code := execute(t.Context(), []string{"status", "--config", n.path("c.toml")}, &out, &out); code != 0 || !strings.Contains(out.String(), "the old file was corrupt and is now "+aside[0]) {
		t.Errorf("status: %d, %s", code, &out)
	}
	p.stop()
	p = n.start()
	p.serving()
	if got := scrape(t, n.path("a"))["cri_proxy_state_reset_total"]; got != 0 {
		t.Errorf("cri_proxy_state_reset_total of the next process is %v, want 0", got)
	}
	p.stop()
}

// TestFailedStart: what newDaemon had claimed when it failed is free again, and
// no goroutine is left.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t))
	cfg, err := configs.Load(n.path("c.toml"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", n.path("s")) // The last thing that is claimed.
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d, err := newDaemon(t.Context(), cfg, quiet()); err == nil || d != nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("newDaemon: %v, %v, want an error of one line", d, err)
		}
		if _, err := os.Lstat(n.path("a")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the admin socket is still there: %v", err)
		}
	}
	closeOf(t, l.Close)
	d, err := newDaemon(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	closeOf(t, d.close)
}
