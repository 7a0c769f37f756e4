package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// systemdSocket is what systemd listens on for news of a service.
func systemdSocket(t *testing.T) (socket *net.UnixConn, path string) {
	t.Helper()
	path = shortDir(t) + "/notify"
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOf(t, socket.Close) })
	return socket, path
}

// news waits for one message.
func news(t *testing.T, socket *net.UnixConn) string {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	n, err := socket.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// waiting returns the messages that have come, and does not wait for more.
func waiting(t *testing.T, socket *net.UnixConn) []string {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for {
		b := make([]byte, 1000)
		n := -1
		err := raw.Control(func(fd uintptr) {
			if read, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT); err == nil {
				n = read
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if n < 0 {
			return all
		}
		all = append(all, string(b[:n]))
	}
}

// TestSystemd: ready once calls are answered, alive while it runs, stopping
// when it stops.
func TestSystemd(t *testing.T) {
	t.Parallel()
	fake := alpha(t)
	listed := make(chan struct{})
	fake.Inject("Version", fakeruntime.Fault{Until: listed, Times: 1})
	socket, path := systemdSocket(t)
	n := newNode(t, fake)
	n.env = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}
	p := n.start()
	if _, err := fake.WaitCalls(t.Context(), "Version", 1); err != nil {
		t.Fatal(err)
	}
	if got := waiting(t, socket); len(got) > 0 {
		t.Errorf("told %q before its backend was listed", got)
	}
	close(listed)
	if got := news(t, socket); got != "READY=1" {
		t.Errorf("told %q, want READY=1 first", got)
	}
	conn, err := rawcri.Dial(n.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closeOf(t, conn.Close) }()
	if _, err := runtimeapi.NewRuntimeServiceClient(conn).Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
		t.Errorf("as soon as it is ready: %v", err)
	}
	for range 3 {
		if got := news(t, socket); got != "WATCHDOG=1" {
			t.Errorf("told %q, want WATCHDOG=1", got)
		}
	}
	p.stop()
	rest := slices.DeleteFunc(waiting(t, socket), func(s string) bool { return s == "WATCHDOG=1" })
	if !slices.Equal(rest, []string{"STOPPING=1"}) {
		t.Errorf("told %q at the end, want STOPPING=1", rest)
	}
}

// TestWatchdog: systemd hears twice in each period from a proxy that answers
// itself, and nothing from one that does not.
func TestWatchdog(t *testing.T) {
	socket, path := systemdSocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	synctest.Test(t, func(t *testing.T) {
		n := &notifier{log: quiet(), period: time.Minute}
		var sick atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.watchdog(ctx, func(context.Context) error {
				if sick.Load() {
					return errors.New("it hangs")
				}
				return nil
			})
		}()
		after := func(d time.Duration) int {
			t.Helper()
			time.Sleep(d) //nolint:forbidigo // In the bubble it takes no time.
			synctest.Wait()
			got := waiting(t, socket)
			for _, s := range got {
				if s != "WATCHDOG=1" {
					t.Errorf("told %q", s)
				}
			}
			return len(got)
		}
		if got := after(time.Second); got != 1 {
			t.Errorf("told %d times at the start, want once", got)
		}
		if got := after(5 * time.Minute); got != 10 {
			t.Errorf("told %d times in five minutes, want 10", got)
		}
		sick.Store(true)
		if got := after(5 * time.Minute); got != 0 {
			t.Errorf("told %d times while it does not answer", got)
		}
		sick.Store(false)
		if got := after(time.Minute); got != 2 {
			t.Errorf("told %d times in a minute after it recovered, want twice", got)
		}
		cancel()
		<-done
	})
}

// TestWithoutWatchdog: outside of systemd, and in a service without WatchdogSec.
func TestWithoutWatchdog(t *testing.T) {
	for name, c := range map[string]struct{ usec, pid, want string }{
		"none":              {},
		"another process's": {usec: "1000000", pid: "1"},
		"malformed":         {usec: "soon", want: "WATCHDOG_USEC"},
		"negative":          {usec: "-1", want: "WATCHDOG_USEC"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			n, err := newNotifier(quiet())
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one about %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n.watchdog(t.Context(), func(context.Context) error { return errors.New("it must not be asked") })
		})
	}
}
