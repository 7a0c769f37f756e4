package admin

import (
	"context"
	"errors"
	"fmt"
	"log" //nolint:depguard // net/http reports its errors to a *log.Logger only; ours passes them on
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/cri-proxy/cri-proxy/internal/socket"
)

const (
	// DefaultShutdownTimeout is how long Run lets requests finish.
	DefaultShutdownTimeout = 3 * time.Second

	socketMode    = 0o600
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	readyTimeout  = 5 * time.Second
)

// Options is what a Server needs. All but MetricsListen and ShutdownTimeout are
// required.
type Options struct {
	Socket          string        // absolute path; see socket.Listen
	MetricsListen   string        // host:port that serves /metrics and nothing else, "" for none
	ShutdownTimeout time.Duration // 0 means DefaultShutdownTimeout
	Gatherer        prometheus.Gatherer
	Log             *logrus.Entry

	// Ready says why the daemon is not ready, or nil. It is called for each
	// /readyz, side by side, and its error is shown to the caller.
	Ready func(context.Context) error
}

func (o Options) validate() error {
	if o.Socket == "" || o.Gatherer == nil || o.Log == nil || o.Ready == nil {
		return errors.New("admin: the options need a socket, a gatherer, a logger and a readiness")
	}
	return nil
}

// Server is the admin server. New binds it, Run serves it.
type Server struct {
	options Options
	mux     *http.ServeMux
	admin   net.Listener
	metrics net.Listener // nil when there is no TCP address
}

// New binds the socket and the TCP address, if there is one. Nothing is served
// before Run. Without Run the caller has to Close. ctx bounds the binding only.
func New(ctx context.Context, o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = DefaultShutdownTimeout
	}
	admin, err := socket.Listen(ctx, o.Socket, socketMode)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	s := &Server{options: o, mux: http.NewServeMux(), admin: admin}
	if o.MetricsListen != "" {
		if s.metrics, err = new(net.ListenConfig).Listen(ctx, "tcp", o.MetricsListen); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics address %s: %w: choose another one, or stop what listens there", o.MetricsListen, err), admin.Close())
		}
	}
	s.addOwnHandlers()
	return s, nil
}

func (s *Server) addOwnHandlers() {
	s.mux.HandleFunc("GET /livez", live)
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.mux.Handle("GET /metrics", s.metricsHandler())
	s.mux.HandleFunc("/debug/pprof/", pprof.Index)
	s.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
}

func (s *Server) metricsHandler() http.Handler {
	return promhttp.HandlerFor(s.options.Gatherer, promhttp.HandlerOpts{ErrorLog: s.options.Log})
}

// Handle adds a handler to the admin socket, with a pattern of http.ServeMux. It
// panics on a pattern that is malformed or taken, like ServeMux. The context of
// a request ends when the daemon shuts down.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Addr is the address of the admin socket.
func (s *Server) Addr() net.Addr { return s.admin.Addr() }

// MetricsAddr is the TCP address of the metrics, with the real port if the
// options had port 0, or nil.
func (s *Server) MetricsAddr() net.Addr {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.Addr()
}

// Close lets go of the addresses of a server that was never run. After Run it
// has nothing to do.
func (s *Server) Close() error {
	err := s.admin.Close()
	if s.metrics == nil {
		return err
	}
	if metricsErr := s.metrics.Close(); !errors.Is(metricsErr, net.ErrClosed) {
		err = errors.Join(err, metricsErr)
	}
	return err
}

// Run serves until ctx ends, or until one of the addresses fails, which is the
// error. When ctx ends no new connection is taken and the contexts of running
// requests end; what is not finished after the shutdown time-out is cut off.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	s.serve(ctx, group, s.admin, s.mux)
	if s.metrics != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", s.metricsHandler())
		s.serve(ctx, group, s.metrics, mux)
	}
	return group.Wait()
}

// serve starts one HTTP server and the goroutine that stops it.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(logWriter{s.options.Log}, "", 0),
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return s.stop(context.WithoutCancel(ctx), server)
	})
}

func (s *Server) stop(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	s.options.Log.Warn("Admin requests that did not end in time were cut off")
	return server.Close()
}

func live(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") }

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := s.options.Ready(ctx); err != nil {
		answer(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	answer(w, http.StatusOK, "ok")
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	// A caller that is gone needs no answer, and nothing depends on it.
	_, _ = w.Write([]byte(text + "\n")) //nolint:errcheck // see above
}

// logWriter passes net/http's lines on to the daemon's log.
type logWriter struct{ log *logrus.Entry }

func (w logWriter) Write(line []byte) (int, error) {
	w.log.Warn(strings.TrimSpace(string(line)))
	return len(line), nil
}
