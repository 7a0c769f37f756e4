package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/handlers"
	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
	"github.com/cri-proxy/cri-proxy/internal/socket"
	"github.com/cri-proxy/cri-proxy/internal/state"
	"github.com/cri-proxy/cri-proxy/internal/tracing"
)

// adminShutdownTime is how long requests on the admin socket may go on when all
// else has ended.
const adminShutdownTime = time.Second

// daemon is the running proxy. It is made by newDaemon and ended by close.
type daemon struct {
	cfg        *configs.Config // It was started with: what no reload changes.
	log        *logrus.Entry
	started    time.Time
	api        *rest.Config // nil without an API server
	store      *state.Store
	index      *routing.Index
	current    atomic.Pointer[generation] // What a reload changes.
	events     *hooks.Events              // nil without an API server
	hooks      *hooks.Engine
	serviceEnv *serviceenv.Variables
	server     *rawcri.Server
	listener   net.Listener
	admin      *admin.Server
	notify     *notifier
	reloads    *reloads
	tracer     *tracing.Tracer // nil makes no spans
}

// newDaemon wires the proxy and claims what it needs of the machine, state
// file and sockets; nothing is served yet. It is one straight function on
// purpose: the order is the dependency order, read from top to bottom. When it
// fails it has given everything back.
func newDaemon(ctx context.Context, cfg *configs.Config, log *logrus.Entry) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, started: time.Now(), index: routing.NewIndex()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.notify, err = newNotifier(component(log, "systemd")); err != nil {
		return nil, err
	}
	if d.api, err = restConfig(cfg); err != nil {
		return nil, err
	}
	if d.store, err = state.Open(ctx, state.Options{Dir: cfg.State.Dir, Log: component(log, "state")}); err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	pins := state.SandboxHandlers(d.store)
	if err := loadPins(pins, d.index); err != nil {
		return nil, err
	}
	catalog := rawcri.NewCatalog()
	first := &generation{cfg: cfg, table: routing.NewTable(cfg)}
	d.index.Keep(first.table)
	o := backend.Options{Config: cfg, Catalog: catalog, Table: first.table, Index: d.index, Log: component(log, "backend")}
	if first.backends, err = backend.New(o); err != nil {
		return nil, err
	}
	d.current.Store(first)
	if err := d.trace(ctx); err != nil {
		return nil, err
	}
	registry := d.newRegistry()
	d.reloads = newReloads(registry, d.started)
	first.images = imageservice.New(imageservice.Options{
		Backends: first.backends, Table: first.table, Index: d.index, Log: component(log, "imageservice"), Metrics: registry, Span: d.tracer.Start,
	})
	first.imageAdmin = first.images.Admin()
	if d.hooks, err = d.newHooks(ctx, registry); err != nil {
		return nil, err
	}
	if d.serviceEnv, err = d.newServiceEnv(registry); err != nil {
		return nil, err
	}
	first.front = handlers.New(handlers.Options{
		Backends: first.backends, Table: first.table, Index: d.index, Log: component(log, "handlers"),
		PrepareImage: first.images.Prepare,
		Hooks:        d.hooks,
		ServiceEnv:   d.serviceEnv,
		Pins:         handlers.Pins{Put: pins.Put, Delete: pins.Delete},
	})
	d.server = d.newServer(catalog, registry)
	if err := d.bind(ctx, registry); err != nil {
		return nil, err
	}
	return d, nil
}

// newServer returns the server of the kubelet's socket.
func (d *daemon) newServer(catalog *rawcri.Catalog, registry prometheus.Registerer) *rawcri.Server {
	o := rawcri.ServerOptions{
		Catalog: catalog,
		Services: map[string]rawcri.Handler{
			rawcri.RuntimeService: d.inGeneration(func(g *generation) rawcri.Handler { return g.front.Handle }),
			rawcri.ImageService:   d.inGeneration(func(g *generation) rawcri.Handler { return g.images.Handle }),
			healthService:         answerHealth,
		},
		Observe: newObserver(registry, component(d.log, "cri")).observe,
		Log:     component(d.log, "cri"),
	}
	if d.tracer != nil {
		o.Trace = d.traceCall
	}
	return rawcri.NewServer(o)
}

// newRegistry returns the metrics of the process and of what the daemon holds.
func (d *daemon) newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerState(registry, func() []*backend.Backend { return d.backends().All() }, d.index, d.stateResets)
	return registry
}

// bind claims the sockets, the kubelet's last: once it is there, callers come.
func (d *daemon) bind(ctx context.Context, registry *prometheus.Registry) error {
	path, err := configs.SocketPath(d.cfg.Admin.Listen)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	d.admin, err = admin.New(ctx, admin.Options{
		Socket: path, MetricsListen: d.cfg.Admin.MetricsListen, ShutdownTimeout: adminShutdownTime,
		Gatherer: registry, Log: component(d.log, "admin"), Ready: d.ready,
	})
	if err != nil {
		return fmt.Errorf("[admin]: %w", err)
	}
	d.admin.Handle("GET /v1/status", d.statusHandler())
	images := http.HandlerFunc(d.serveImages)
	d.admin.Handle("/v1/images", images)
	d.admin.Handle("/v1/images/", images)
	deliveries := d.hooks.Handler()
	d.admin.Handle("/v1/hooks", deliveries)
	d.admin.Handle("/v1/hooks/", deliveries)
	if d.listener, err = d.listen(ctx); err != nil {
		return fmt.Errorf("server.listen: %w", err)
	}
	return nil
}

// listen returns the socket that systemd has for us, or else one of our own.
func (d *daemon) listen(ctx context.Context) (net.Listener, error) {
	path, err := configs.SocketPath(d.cfg.Server.Listen)
	if err != nil {
		return nil, err
	}
	if inherited, err := socket.Inherited(path); err != nil || inherited != nil {
		return inherited, err
	}
	return socket.Listen(ctx, path, os.FileMode(d.cfg.Server.SocketMode))
}

func component(log *logrus.Entry, name string) *logrus.Entry {
	return log.WithField("component", name)
}

// run serves until ctx ends or something that it cannot do without fails, which
// is the error. All that it started has ended when it returns.
func (d *daemon) run(ctx context.Context) error {
	// The admin socket outlives the calls, so that a slow shutdown can be watched.
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAdmin()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.admin.Run(adminCtx) })
	group.Go(func() error {
		defer stopAdmin()
		return d.serveCRI(ctx)
	})
	return group.Wait()
}

// serveCRI answers calls until ctx ends, and after that those in flight.
func (d *daemon) serveCRI(ctx context.Context) error {
	// Before the first answer, or the first calls would miss.
	first := d.current.Load()
	first.backends.Start(ctx)
	if ended(ctx) {
		return nil // It is to stop before it ever served.
	}
	if err := d.dropStalePins(); err != nil {
		d.log.WithError(err).Warn("handlers of pods that are gone stay in the state file")
	}
	// The calls in flight may wait for hooks, which therefore end after them.
	hooksCtx, stopHooks := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHooks()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.hooks.Run(hooksCtx) })
	group.Go(func() error { return first.backends.Run(ctx) })
	group.Go(func() error { return first.images.Run(ctx) })
	group.Go(func() error { return d.runServiceEnv(ctx) })
	group.Go(func() error { return d.server.Serve(d.listener) })
	group.Go(func() error { return d.announce(ctx) })
	group.Go(func() error { return d.serveReloads(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		d.notify.stopping()
		limit := d.current.Load().cfg.Server.ShutdownTimeout
		d.log.WithField("at_most", limit.String()).Info("stopping: no new calls; those in flight may end")
		d.server.Shutdown(limit.Duration)
		stopHooks()
		return nil
	})
	return group.Wait()
}

// announce tells systemd that the proxy is ready, once it has answered itself,
// and from then on that it is alive.
func (d *daemon) announce(ctx context.Context) error {
	err := d.alive(ctx)
	if ended(ctx) {
		return nil // It is to stop, and answers no more.
	}
	if err != nil {
		return err
	}
	d.log.WithFields(logrus.Fields{"listen": d.cfg.Server.Listen, "version": readVersion().Version}).Info("serving CRI")
	d.notify.ready()
	close(d.reloads.served)
	d.notify.watchdog(ctx, d.alive)
	return nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// close gives everything back, in the reverse order of newDaemon.
func (d *daemon) close() error {
	var errs []error
	// What was served has ended by now; what was only claimed, and the workers of
	// a server that never served, have not.
	if d.server != nil {
		d.server.Shutdown(0)
	}
	if d.listener != nil {
		errs = append(errs, ignoreClosed(d.listener.Close()))
	}
	if d.admin != nil {
		errs = append(errs, ignoreClosed(d.admin.Close()))
	}
	if d.events != nil {
		d.events.Close()
	}
	d.tracer.Close()
	if g := d.current.Load(); g != nil {
		errs = append(errs, g.backends.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// stateResets is 1 when this process had to set a corrupt state file aside.
func (d *daemon) stateResets() float64 {
	if d.store.ResetFrom() != "" {
		return 1
	}
	return 0
}
