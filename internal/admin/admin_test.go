package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"github.com/cri-proxy/cri-proxy/internal/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are good for one server on a socket of its own.
func options(t *testing.T) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	logger, _ := logrustest.NewNullLogger()
	registry := prometheus.NewRegistry()
	promauto.With(registry).NewGauge(prometheus.GaugeOpts{Name: "cri_proxy_test", Help: "A test."}).Set(42)
	return Options{
		Socket:   filepath.Join(dir, "admin.sock"),
		Gatherer: registry,
		Log:      logrus.NewEntry(logger),
		Ready:    func(context.Context) error { return nil },
	}
}

// run serves until the test ends, or until stop is called.
func run(t *testing.T, o Options, routes map[string]http.HandlerFunc) (s *Server, stop func()) {
	t.Helper()
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, h := range routes {
		s.Handle(pattern, h)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	stop = func() {
		cancel()
		if ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

func TestAdminSocketServes(t *testing.T) {
	t.Parallel()
	o := options(t)
	run(t, o, map[string]http.HandlerFunc{"GET /v1/status": func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, `{"backends":[]}`)
	}})
	if info, err := os.Stat(o.Socket); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("the socket has mode %v, want %o (%v)", info.Mode(), socketMode, err)
	}
	for path, want := range map[string]string{
		"/livez":                      "ok",
		"/readyz":                     "ok",
		"/metrics":                    "cri_proxy_test 42",
		"/debug/pprof/":               "goroutine",
		"/debug/pprof/heap?debug=1":   "heap profile",
		"/debug/pprof/cmdline":        "admin",
		"/debug/pprof/trace?seconds=": "",
		"/v1/status":                  `{"backends":[]}`,
	} {
		if body, err := Get(t.Context(), o.Socket, path); err != nil || !strings.Contains(string(body), want) {
			t.Errorf("GET %s: %.100q, want %q (%v)", path, body, want, err)
		}
	}
	for _, path := range []string{"/", "/v1/unknown"} {
		if _, err := Get(t.Context(), o.Socket, path); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("GET %s: %v, want 404", path, err)
		}
	}
}

func TestReadinessFollowsItsFunction(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Ready = func(context.Context) error { return errors.New("backend containerd is away") }
	run(t, o, nil)
	_, err := Get(t.Context(), o.Socket, "/readyz")
	if err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: not ready: backend containerd is away") {
		t.Errorf("GET /readyz: %v", err)
	}
	if _, err := Get(t.Context(), o.Socket, "/livez"); err != nil {
		t.Errorf("GET /livez: %v, want it independent of the readiness", err)
	}
}

func TestMetricsAddressServesNothingElse(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.MetricsListen = "127.0.0.1:0"
	s, _ := run(t, o, map[string]http.HandlerFunc{"GET /v1/status": live})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{
		"/metrics": 200, "/": 404, "/livez": 404, "/readyz": 404, "/debug/pprof/": 404, "/v1/status": 404,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.MetricsAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != want {
			t.Errorf("GET %s over TCP: %s, want %d (%v)", path, response.Status, want, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a live socket", func(t *testing.T) {
		t.Parallel()
		o := options(t)
		run(t, o, nil)
		if _, err := New(t.Context(), o); !errors.Is(err, socket.ErrInUse) || !strings.Contains(err.Error(), o.Socket) {
			t.Errorf("New: %v, want %v", err, socket.ErrInUse)
		}
		if _, err := Get(t.Context(), o.Socket, "/livez"); err != nil {
			t.Errorf("the first server is gone: %v", err)
		}
	})
	t.Run("a taken TCP address", func(t *testing.T) {
		t.Parallel()
		taken := httptest.NewServer(http.NotFoundHandler())
		defer taken.Close()
		o := options(t)
		o.MetricsListen = taken.Listener.Addr().String()
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.MetricsListen) {
			t.Errorf("New: %v, want the address", err)
		}
		if _, err := os.Lstat(o.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the admin socket is left behind: %v", err)
		}
	})
	t.Run("missing options", func(t *testing.T) {
		t.Parallel()
		if _, err := New(t.Context(), Options{Socket: "/x"}); err == nil {
			t.Error("New took options without a logger")
		}
	})
}

func TestCloseWithoutRun(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.MetricsListen = "127.0.0.1:0"
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Addr().String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// A request ends with the daemon: the one that listens to its context at once,
// the one that does not when the time-out is over.
func TestRunEndsInTime(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"a request that listens": false, "a request that is deaf": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.ShutdownTimeout = time.Minute
			if deaf {
				o.ShutdownTimeout = 50 * time.Millisecond
			}
			started, release := make(chan struct{}), make(chan struct{})
			_, stop := run(t, o, map[string]http.HandlerFunc{"GET /slow": func(_ http.ResponseWriter, r *http.Request) {
				close(started)
				if deaf {
					<-release
				}
				<-r.Context().Done()
			}})
			answered := make(chan error, 1)
			go func() {
				_, err := Get(t.Context(), o.Socket, "/slow")
				answered <- err
			}()
			<-started
			stop()
			close(release)
			if err := <-answered; (err != nil) != deaf {
				t.Errorf("the caller got %v", err)
			}
			if _, err := os.Lstat(o.Socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left behind: %v", err)
			}
		})
	}
}

func TestClientWithoutADaemon(t *testing.T) {
	t.Parallel()
	o := options(t)
	_, err := Get(t.Context(), o.Socket, "/v1/status")
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), o.Socket) || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("Get: %v, want ErrNotRunning with the path and what to do", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Get(ctx, o.Socket, "/v1/status"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v, want %v", err, context.Canceled)
	}
}
