package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// node is what one command needs: a folder with its configuration, sockets and
// state.
type node struct {
	t   *testing.T
	dir string
	env []string
}

// newNode writes the configuration of one backend. A line of extra is
// "table.key = value".
func newNode(t *testing.T, backend *fakeruntime.Runtime, extra ...string) *node {
	t.Helper()
	n := &node{t: t, dir: shortDir(t)}
	n.configure(backend, extra...)
	return n
}

func (n *node) configure(backend *fakeruntime.Runtime, extra ...string) {
	n.t.Helper()
	lines := []string{
		`version = 1`, `default_handler = "runc"`,
		`backends.alpha.endpoint = "` + backend.Endpoint() + `"`, `handlers.runc.backend = "alpha"`,
		`server.shutdown_timeout = "1s"`,
	}
	for key, path := range map[string]string{"server.listen": n.path("s"), "admin.listen": n.path("a"), "state.dir": n.path("state")} {
		if !strings.Contains(strings.Join(extra, "\n"), key+" =") {
			lines = append(lines, key+` = "`+path+`"`)
		}
	}
	text := strings.Join(append(lines, extra...), "\n")
	if err := os.WriteFile(n.path("c.toml"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// process is a running "cri-proxy run".
type process struct {
	*exec.Cmd
	n   *node
	log *logBuffer
}

// logBuffer is what a process wrote so far.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start runs the command; it need not serve yet.
func (n *node) start(change ...func(*exec.Cmd)) *process {
	n.t.Helper()
	p := &process{n: n, log: &logBuffer{}}
	// Not the test's context: that is cancelled before the clean-ups, and kills.
	p.Cmd = exec.Command("cri-proxy", "run", "--config", n.path("c.toml")) //nolint:noctx // See above; stop and the clean-up end it.
	p.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), n.env...)
	p.Stderr = p.log
	for _, c := range change {
		c(p.Cmd)
	}
	if err := p.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if p.ProcessState == nil {
			p.kill()
		}
		if n.t.Failed() {
			n.t.Logf("the process's log:\n%s", p.log)
		}
	})
	return p
}

func (p *process) kill() {
	p.n.t.Helper()
	if err := p.Process.Kill(); err != nil {
		p.n.t.Error(err)
	}
	if err := p.Wait(); err == nil {
		p.n.t.Error("a killed process ended well")
	}
}

// serving waits until the process is ready.
func (p *process) serving() {
	p.n.t.Helper()
	eventually(p.n.t, "the process is ready", func() bool {
		_, err := admin.Get(p.n.t.Context(), p.n.path("a"), "/readyz")
		return err == nil
	})
}

// stop ends the process as systemd does, and returns how long that took.
func (p *process) stop() time.Duration {
	p.n.t.Helper()
	began := time.Now()
	p.terminate()
	for _, name := range []string{"s", "a"} {
		if _, err := os.Lstat(p.n.path(name)); !errors.Is(err, fs.ErrNotExist) {
			p.n.t.Errorf("socket %s after the end: %v", name, err)
		}
	}
	return time.Since(began)
}

// terminate ends the process and waits for its end.
func (p *process) terminate() {
	p.n.t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.n.t.Error(err)
	}
	if err := p.Wait(); err != nil {
		p.n.t.Errorf("after SIGTERM: %v", err)
	}
}

// refused waits until the process has ended by itself, with exit code 1, and
// returns what it said.
func (p *process) refused() string {
	p.n.t.Helper()
	err := p.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		p.n.t.Errorf("ended with %v, want exit code 1", err)
	}
	return p.log.String()
}

func alpha(t *testing.T) *fakeruntime.Runtime {
	t.Helper()
	return fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
}

func closeOf(t *testing.T, end func() error) {
	t.Helper()
	if err := end(); err != nil {
		t.Error(err)
	}
}
