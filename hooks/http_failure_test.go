package hooks

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// A server that begins to listen only after it was asked for is found inside of one attempt.
func TestHTTPLateListener(t *testing.T) {
	t.Parallel()
	reserved := listenLocal(t, "127.0.0.1:0")
	address := reserved.Addr().String()
	if err := reserved.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	result := make(chan error, 1)
	go func() {
		result <- e.attempt(t.Context(), f, f.owed(journal.Hook{HTTPGet: getOf(t, "http://"+address)}))
	}()
	if _, err := f.WaitCalls(t.Context(), "ContainerStatus", 2); err != nil { // Two refusals.
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: listenLocal(t, address), Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
	s.Start()
	t.Cleanup(s.Close)
	wantError(t, <-result, "")
}

func TestHTTPNobodyListens(t *testing.T) {
	t.Parallel()
	reserved := listenLocal(t, "127.0.0.1:0")
	if err := reserved.Close(); err != nil {
		t.Fatal(err)
	}
	err := tryGet(t, "http://"+reserved.Addr().String(), 500*time.Millisecond)
	wantError(t, err, "longer than 500ms; before: ")
	wantError(t, err, "connection refused")
}

// rude is a server that treats its first connections badly, and answers further ones.
func rude(t *testing.T, bad int64, treat func(net.Conn)) (base string, accepted *atomic.Int64) {
	t.Helper()
	l := listenLocal(t, "127.0.0.1:0")
	accepted = &atomic.Int64{}
	done := make(chan struct{})
	t.Cleanup(func() { <-done }) // After the listener has been closed: clean-ups run last to first.
	t.Cleanup(func() { closeAll(l) })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if accepted.Add(1) <= bad {
				treat(c)
				continue
			}
			if _, err := c.Read(make([]byte, 4096)); err == nil {
				writeAll(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			closeAll(c)
		}
	}()
	return "http://" + l.Addr().String(), accepted
}

// closeAll closes what may be closed already.
func closeAll(all ...io.Closer) {
	for _, c := range all {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			panic(err)
		}
	}
}

// readThen reads the request first.
func readThen(treat func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			treat(c)
		}
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			panic(err)
		}
	}
	closeAll(c)
}

func answerThenClose(text string) func(net.Conn) {
	return readThen(func(c net.Conn) {
		writeAll(c, text)
		closeAll(c)
	})
}

func TestHTTPNoAnswerIsSentAgain(t *testing.T) {
	t.Parallel()
	for name, treat := range map[string]func(net.Conn){
		"reset at once":            reset,
		"reset after the request":  readThen(reset),
		"closed at once":           func(c net.Conn) { closeAll(c) },
		"closed after the request": answerThenClose(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, accepted := rude(t, 3, treat)
			wantError(t, tryGet(t, base, 0), "")
			if accepted.Load() != 4 {
				t.Errorf("%d connections, want 4", accepted.Load())
			}
		})
	}
}

// The same before TLS is agreed upon; what answers then is not TLS, which is final.
func TestHTTPSNoGreetingIsTriedAgain(t *testing.T) {
	t.Parallel()
	base, accepted := rude(t, 3, func(c net.Conn) { closeAll(c) })
	err := tryGet(t, strings.Replace(base, "http:", "https:", 1), 5*time.Second)
	wantError(t, err, "HTTP response to HTTPS client")
	if accepted.Load() != 4 {
		t.Errorf("%d connections, want 4", accepted.Load())
	}
}

// Who has said anything has had the request: it is not sent again.
func TestHTTPBadAnswerIsFinal(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"half an answer":   "HTTP/1.1 2",
		"no HTTP":          secret + "\r\n\r\n",
		"a bad header":     "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n",
		"too long a head":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 100<<10),
		"a bad location":   "HTTP/1.1 302 Found\r\nLocation: http://%" + secret + "\r\nContent-Length: 0\r\n\r\n",
		"another scheme":   "HTTP/1.1 302 Found\r\nLocation: " + secret + "://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
		"refused redirect": "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, accepted := rude(t, 9, answerThenClose(answer))
			err := tryGet(t, base, 5*time.Second)
			wantError(t, err, " ")
			if accepted.Load() != 1 || strings.Contains(err.Error(), "longer than") {
				t.Errorf("%d connections, then %v", accepted.Load(), err)
			}
		})
	}
}

// The status decides; a body without an end is not read to it.
func TestHTTPBodies(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for writeAll(w, strings.Repeat("x", 4096)) {
			}
		},
		"stalled": func(w http.ResponseWriter, r *http.Request) {
			writeAll(w, "x")
			if err := http.NewResponseController(w).Flush(); err == nil {
				<-r.Context().Done()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				body(w, r)
			})
			wantError(t, tryGet(t, s.URL, 300*time.Millisecond), "")
			<-ended // The connection is closed.
		})
	}
}

func TestHTTPSlowServer(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		defer close(ended)
		<-r.Context().Done()
	})
	err := tryGet(t, s.URL, 100*time.Millisecond)
	wantError(t, err, "longer than 100ms")
	<-ended
}

// A server that accepts and never greets holds neither a connection nor a goroutine of ours.
func TestHTTPStalledGreeting(t *testing.T) {
	t.Parallel()
	gone := make(chan error, 1)
	base, _ := rude(t, 1, func(c net.Conn) {
		err := c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if err == nil {
			_, err = io.Copy(io.Discard, c) // Until the client closes it.
		}
		closeAll(c)
		gone <- err
	})
	wantError(t, tryGet(t, strings.Replace(base, "http:", "https:", 1), 100*time.Millisecond), "longer than 100ms")
	if err := <-gone; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

// A container that ends while nobody answers makes the hook moot.
func TestHTTPOfAContainerThatEnds(t *testing.T) {
	t.Parallel()
	reserved := listenLocal(t, "127.0.0.1:0")
	if err := reserved.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	result := make(chan journal.Record, 1)
	r := f.owed(journal.Hook{HTTPGet: getOf(t, "http://"+reserved.Addr().String())})
	go func() { result <- e.deliver(t.Context(), f, r) }()
	if _, err := f.WaitCalls(t.Context(), "ContainerStatus", 1); err != nil {
		t.Fatal(err)
	}
	f.Exit(f.container, 0)
	if done := <-result; done.State != journal.Moot {
		t.Errorf("it is %s (%s)", done.State, done.Error)
	}
}
