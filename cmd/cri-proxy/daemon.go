package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
)

// adminShutdownTime is how long requests on the admin socket may go on when all
// else has ended.
const adminShutdownTime = time.Second

// daemon is the running proxy. It is made by newDaemon and ended by close.
type daemon struct {
	cfg        *configs.Config
	log        *logrus.Entry
	started    time.Time
	api        *rest.Config // nil without an API server
	store      *state.Store
	index      *routing.Index
	table      *routing.Table
	backends   *backend.Set
	images     *imageservice.Service
	events     *hooks.Events // nil without an API server
	hooks      *hooks.Engine
	serviceEnv *serviceenv.Variables
	server     *rawcri.Server
	listener   net.Listener
	admin      *admin.Server
	notify     *notifier
}

// newDaemon wires the proxy and claims what it needs of the machine, state
// file and sockets; nothing is served yet. It is one straight function on
// purpose: the order is the dependency order, read from top to bottom. When it
// fails it has given everything back.
func newDaemon(ctx context.Context, cfg *configs.Config, log *logrus.Entry) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, started: time.Now()}
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
	d.table, d.index = routing.NewTable(cfg), routing.NewIndex()
	pins := state.SandboxHandlers(d.store)
	if err := loadPins(pins, d.index); err != nil {
		return nil, err
	}
	catalog := rawcri.NewCatalog()
	d.backends, err = backend.New(backend.Options{
		Config: cfg, Catalog: catalog, Table: d.table, Index: d.index, Log: component(log, "backend"),
	})
	if err != nil {
		return nil, err
	}
	registry := d.newRegistry()
	d.images = imageservice.New(imageservice.Options{
		Backends: d.backends, Table: d.table, Index: d.index, Log: component(log, "imageservice"), Metrics: registry,
	})
	if d.hooks, err = d.newHooks(ctx, registry); err != nil {
		return nil, err
	}
	if d.serviceEnv, err = d.newServiceEnv(registry); err != nil {
		return nil, err
	}
	front := handlers.New(handlers.Options{
		Backends: d.backends, Table: d.table, Index: d.index, Log: component(log, "handlers"),
		PrepareImage: d.images.Prepare,
		Hooks:        d.hooks,
		ServiceEnv:   d.serviceEnv,
		Pins:         handlers.Pins{Put: pins.Put, Delete: pins.Delete},
	})
	d.server = rawcri.NewServer(rawcri.ServerOptions{
		Catalog: catalog,
		Services: map[string]rawcri.Handler{
			rawcri.RuntimeService: front.Handle,
			rawcri.ImageService:   d.images.Handle,
			healthService:         answerHealth,
		},
		Observe: newObserver(registry, component(log, "cri")).observe,
		Log:     component(log, "cri"),
	})
	if err := d.bind(ctx, registry); err != nil {
		return nil, err
	}
	return d, nil
}

// newRegistry returns the metrics of the process and of what the daemon holds.
func (d *daemon) newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerState(registry, d.backends, d.index, d.stateResets)
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
	images := d.images.Admin()
	d.admin.Handle("/v1/images", images)
	d.admin.Handle("/v1/images/", images)
	deliveries := d.hooks.Handler()
	d.admin.Handle("/v1/hooks", deliveries)
	d.admin.Handle("/v1/hooks/", deliveries)
	if path, err = configs.SocketPath(d.cfg.Server.Listen); err != nil {
		return fmt.Errorf("server.listen: %w", err)
	}
	if d.listener, err = socket.Listen(ctx, path, os.FileMode(d.cfg.Server.SocketMode)); err != nil {
		return fmt.Errorf("server.listen: %w", err)
	}
	return nil
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
	d.backends.Start(ctx)
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
	group.Go(func() error { return d.backends.Run(ctx) })
	group.Go(func() error { return d.images.Run(ctx) })
	group.Go(func() error { return d.runServiceEnv(ctx) })
	group.Go(func() error { return d.server.Serve(d.listener) })
	group.Go(func() error { return d.announce(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		d.notify.stopping()
		d.log.WithField("at_most", d.cfg.Server.ShutdownTimeout.String()).Info("stopping: no new calls; those in flight may end")
		d.server.Shutdown(d.cfg.Server.ShutdownTimeout.Duration)
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
	if d.backends != nil {
		errs = append(errs, d.backends.Close())
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
