package hooks

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// getOf is a request to a server on the loopback.
func getOf(t *testing.T, base string) *journal.HTTPGet {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return &journal.HTTPGet{
		Scheme: u.Scheme, Port: port, Path: "/hook?token=" + secret, Headers: []journal.Header{{Name: "Authorization", Value: secret}},
	}
}

// tryGet makes an attempt at a server on the loopback, which a pod in the node's network serves.
func tryGet(t *testing.T, base string, timeout time.Duration) error {
	t.Helper()
	f := newFake(t, fakeruntime.Options{})
	e, logged := newCourier(t, logrus.DebugLevel)
	err := e.attempt(t.Context(), f, f.owed(journal.Hook{HTTPGet: getOf(t, base), Timeout: timeout}))
	if strings.Contains(logged.String(), "token") {
		t.Errorf("the log says %s", logged)
	}
	return err
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

func TestHTTPStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]string{
		200: "", 204: "", 299: "", 300: "", 304: "", 399: "",
		400: "400 Bad Request", 404: "404 Not Found", 500: "500 Internal Server Error", 599: "599",
	} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Answer", secret)
				w.WriteHeader(code)
				if code >= 400 {
					writeAll(w, secret)
				}
			})
			wantError(t, tryGet(t, s.URL, 0), want)
		})
	}
}

// writeAll writes for a client that may be gone.
func writeAll(w io.Writer, text string) bool {
	_, err := io.WriteString(w, text)
	return err == nil
}

func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	received := make(chan *http.Request, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { received <- r })
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	r := f.owed(journal.Hook{HTTPGet: getOf(t, s.URL)})
	r.Attempts = 2
	r.Hook.HTTPGet.Path = "/a%2Fb//c?x=1&y=%20"
	r.Hook.HTTPGet.Headers = []journal.Header{
		{Name: "x-a", Value: "1"}, {Name: "X-A", Value: "2"}, {Name: "host", Value: "shop.example"}, {Name: "x-cri-proxy-attempt", Value: "forged"},
	}
	wantError(t, e.attempt(t.Context(), f, r), "")
	got := <-received
	if got.Method != http.MethodGet || got.RequestURI != "/a%2Fb//c?x=1&y=%20" || got.Host != "shop.example" || !got.Close {
		t.Errorf("it sent %s %s to %s, close %v", got.Method, got.RequestURI, got.Host, got.Close)
	}
	agent := got.Header.Get("User-Agent")
	if !strings.HasPrefix(agent, "cri-proxy") {
		t.Errorf("the User-Agent is %q", agent)
	}
	want := http.Header{
		"Accept": {"*/*"}, "X-A": {"1", "2"}, "User-Agent": {agent},
		"X-Cri-Proxy-Delivery-Id": {r.ID}, "X-Cri-Proxy-Attempt": {"2"}, "X-Cri-Proxy-Event": {"PostStart"}, "X-Cri-Proxy-Container-Id": {f.container},
	}
	got.Header.Del("Connection")
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPDefaultsAreReplaced(t *testing.T) {
	t.Parallel()
	r := journal.Record{Hook: journal.Hook{HTTPGet: &journal.HTTPGet{Scheme: "http", Port: 80, Path: "/", Headers: []journal.Header{
		{Name: "user-agent", Value: "mine"}, {Name: "accept", Value: "text/plain"},
	}}}}
	request, err := newRequest(t.Context(), "10.0.0.1", r)
	if err != nil {
		t.Fatal(err)
	}
	if agent, accept := request.Header["User-Agent"], request.Header["Accept"]; !slices.Equal(agent, []string{"mine"}) || !slices.Equal(accept, []string{"text/plain"}) {
		t.Errorf("User-Agent %q, Accept %q", agent, accept)
	}
}

func TestHTTPTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ host, path, want string }{
		{"10.0.0.1", "/", "http://10.0.0.1:8080/"},
		{"10.0.0.1", "", "http://10.0.0.1:8080/"},
		{"10.0.0.1", "a?b=c", "http://10.0.0.1:8080/a?b=c"},
		{"10.0.0.1", "//evil.example/a", "http://10.0.0.1:8080/a"},
		{"10.0.0.1", "//user:pass@evil.example/a", "http://10.0.0.1:8080/a"},
		{"10.0.0.1", "/100%", "http://10.0.0.1:8080/100%25"},
		{"fd00::1", "/a", "http://[fd00::1]:8080/a"},
		{"[fd00::1]", "/a", "http://[fd00::1]:8080/a"},
		{"shop.example", "/a", "http://shop.example:8080/a"},
	} {
		r := journal.Record{Hook: journal.Hook{HTTPGet: &journal.HTTPGet{Scheme: "http", Port: 8080, Path: tt.path}}}
		request, err := newRequest(t.Context(), tt.host, r)
		if err != nil {
			t.Errorf("%s %s: %v", tt.host, tt.path, err)
			continue
		}
		if got := request.URL.String(); got != tt.want {
			t.Errorf("%s %s gives %s, want %s", tt.host, tt.path, got, tt.want)
		}
	}
}

func TestHTTPClientAsksNoProxy(t *testing.T) {
	t.Parallel()
	transport, ok := newHTTPClient().Transport.(*http.Transport)
	if !ok || transport.Proxy != nil || !transport.DisableKeepAlives {
		t.Error("the client may use a proxy or keep connections")
	}
}

func TestHTTPAddress(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	own := f.AddSandbox(fakeruntime.Sandbox{})
	address, err := e.address(t.Context(), f, own)
	if err != nil || !strings.HasPrefix(address, "10.88.") {
		t.Errorf("a pod of its own network is at %q (%v)", address, err)
	}
	if address, err = e.address(t.Context(), f, f.sandbox); err != nil || address != "127.0.0.1" {
		t.Errorf("a pod of the node's network is at %q (%v)", address, err)
	}
	if _, err := f.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: own}); err != nil {
		t.Fatal(err)
	}
	_, err = e.address(t.Context(), f, own)
	wantError(t, err, "network may be gone")
	_, err = e.address(t.Context(), f, "unknown")
	wantError(t, err, "not found")
}

func TestHTTPHostOfTheConfiguration(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	f := newFake(t, fakeruntime.Options{})
	f.Inject("PodSandboxStatus", fakeruntime.Fault{Err: errors.New("nobody is to ask")})
	e, _ := newCourier(t, logrus.InfoLevel)
	r := f.owed(journal.Hook{HTTPGet: getOf(t, s.URL)})
	r.Hook.HTTPGet.Host = "127.0.0.1"
	wantError(t, e.attempt(t.Context(), f, r), "")
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	ok := func(http.ResponseWriter, *http.Request) {}
	s := httptest.NewTLSServer(http.HandlerFunc(ok))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	wantError(t, tryGet(t, s.URL, 0), "")
	plain := serve(t, ok)
	wantError(t, tryGet(t, strings.Replace(plain.URL, "http:", "https:", 1), 0), "HTTP response to HTTPS client")
}

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

func TestHTTPRedirects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, host, want string
		elsewhere        int64
	}{
		{"to another port", "127.0.0.1", "418", 1},
		{"to another host, which is the answer", "localhost", "", 0},
		{"in a circle", "", "more than 10 times", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var elsewhere atomic.Int64
			other := serve(t, func(w http.ResponseWriter, r *http.Request) {
				elsewhere.Add(1)
				if r.Header.Get("X-Cri-Proxy-Delivery-Id") == "" {
					t.Error("the redirected request has lost its headers")
				}
				w.WriteHeader(http.StatusTeapot)
			})
			location := "/"
			if tt.host != "" {
				location = strings.Replace(other.URL, "127.0.0.1", tt.host, 1)
			}
			s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, location, http.StatusFound) })
			wantError(t, tryGet(t, s.URL, 0), tt.want)
			if elsewhere.Load() != tt.elsewhere {
				t.Errorf("%d requests elsewhere, want %d", elsewhere.Load(), tt.elsewhere)
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

// Attempts have numbers that servers are told, and one id.
func TestHTTPAttempts(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 3)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		attempt := r.Header.Get("X-Cri-Proxy-Attempt")
		seen <- r.Header.Get("X-Cri-Proxy-Delivery-Id") + " " + attempt
		if attempt != "3" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	r := f.owed(journal.Hook{HTTPGet: getOf(t, s.URL), Attempts: 3})
	if done := e.deliver(t.Context(), f, r); done.State != journal.Delivered || done.Attempts != 3 {
		t.Errorf("it is %s after %d attempts (%s)", done.State, done.Attempts, done.Error)
	}
	for _, n := range []string{"1", "2", "3"} {
		if got := <-seen; got != r.ID+" "+n {
			t.Errorf("the server was told %q", got)
		}
	}
}
