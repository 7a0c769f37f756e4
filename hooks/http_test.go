package hooks

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
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
