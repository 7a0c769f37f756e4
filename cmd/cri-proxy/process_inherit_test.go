package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// inherit lets a process have sockets as systemd passes them.
func inherit(files ...*os.File) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		args := strings.Join(c.Args[1:], " ")
		shell := exec.Command("sh", "-c", "LISTEN_PID=$$ exec cri-proxy "+args) //nolint:gosec,noctx // Words of the test; the process that it becomes is ended by it.
		c.Path, c.Args, c.ExtraFiles = shell.Path, shell.Args, files
		c.Env = append(c.Env, "LISTEN_FDS="+string(rune('0'+len(files))))
	}
}

// passed listens as systemd does, and returns the socket to pass.
func passed(t *testing.T, network, address string) *os.File {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	socket, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		t.Fatalf("a listener is a %T", l)
	}
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	closeOf(t, l.Close)
	t.Cleanup(func() { closeOf(t, file.Close) })
	return file
}

// TestInheritedSocket: with a socket that systemd passes, callers wait while one
// process ends and the next one starts; nobody is refused, and the file stays.
func TestInheritedSocket(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t), `server.socket_mode = "0600"`)
	file := passed(t, "unix", n.path("s"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var callers sync.WaitGroup
	connected := 0
	callers.Go(func() {
		for ctx.Err() == nil { // Each connects anew.
			conn, err := new(net.Dialer).DialContext(ctx, "unix", n.path("s"))
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("refused: %v", err)
				return
			}
			connected++
			closeOf(t, conn.Close)
			pauseFor(ctx, 5*time.Millisecond)
		}
	})
	before, err := os.Stat(n.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		// It calls before there is anybody to answer.
		conn, err := rawcri.Dial(n.path("s"), grpc.WithUserAgent("waiting"))
		if err != nil {
			t.Fatal(err)
		}
		answered := async(func() error {
			_, err := runtimeapi.NewRuntimeServiceClient(conn).Version(t.Context(), &runtimeapi.VersionRequest{})
			return err
		})
		p := n.start(inherit(file))
		if err := <-answered; err != nil {
			t.Errorf("a call made before the process: %v", err)
		}
		p.serving()
		closeOf(t, conn.Close)
		p.terminate()
		after, err := os.Stat(n.path("s"))
		if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
			t.Errorf("the socket was %v and is %v, %v", before.Mode(), after, err)
		}
	}
	cancel()
	callers.Wait()
	if connected < 10 {
		t.Errorf("only %d connections", connected)
	}
}

// TestInheritedWrongly: a socket that is not the configuration's is refused, and
// says what to write.
func TestInheritedWrongly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files func(*node) []*os.File
		want  string
	}{
		"another path": {
			func(n *node) []*os.File { return []*os.File{passed(n.t, "unix", n.path("x"))} },
			"/x: write ListenStream=",
		},
		"a port": {
			func(n *node) []*os.File { return []*os.File{passed(n.t, "tcp", "127.0.0.1:0")} },
			"systemd passes what is no unix socket to listen on: write ListenStream=",
		},
		"two": {
			func(n *node) []*os.File {
				return []*os.File{passed(n.t, "unix", n.path("s")), passed(n.t, "unix", n.path("x"))}
			},
			"systemd passes 2 sockets, and one is needed: leave one ListenStream= in the socket's unit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, alpha(t))
			got := n.start(inherit(c.files(n)...)).refused()
			if !strings.Contains(got, "server.listen: systemd passes ") || !strings.Contains(got, c.want) {
				t.Errorf("said %q, want %q", got, c.want)
			}
		})
	}
}
