package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sirupsen/logrus"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

// reloads are the requests to read the configuration anew, and what became of
// the last one.
type reloads struct {
	path   string           // The configuration's file.
	asked  <-chan os.Signal // nil: nobody asks.
	served chan struct{}    // Closed when the daemon is ready.

	last    atomic.Pointer[reloadReport] // nil before the first.
	success prometheus.Gauge
	when    prometheus.Gauge

	closing sync.WaitGroup
	before  <-chan struct{} // Closed when the last generation but one has no calls.
}

// reloadReport is how the last reload went, as the status shows it.
type reloadReport struct {
	Time    time.Time `json:"time"`
	Success bool      `json:"success"`
	Error   string    `json:"error,omitempty"`
}

func newReloads(reg prometheus.Registerer, started time.Time) *reloads {
	factory := promauto.With(reg)
	none := make(chan struct{})
	close(none)
	r := &reloads{
		served: make(chan struct{}), before: none,
		success: factory.NewGauge(prometheus.GaugeOpts{
			Name: "cri_proxy_config_last_reload_successful", Help: "Whether the configuration's file could be taken over when it was read last.",
		}),
		when: factory.NewGauge(prometheus.GaugeOpts{
			Name: "cri_proxy_config_last_reload_success_timestamp_seconds", Help: "When the configuration in effect was read.",
		}),
	}
	r.success.Set(1)
	r.when.Set(float64(started.Unix()))
	return r
}

// note keeps and logs how a reload went.
func (r *reloads) note(log *logrus.Entry, err error) {
	report := &reloadReport{Time: time.Now(), Success: err == nil}
	if err == nil {
		r.success.Set(1)
		r.when.Set(float64(report.Time.Unix()))
		log.Info("the configuration was reloaded")
	} else {
		report.Error = err.Error()
		r.success.Set(0)
		for problem := range strings.SplitSeq(report.Error, "\n") { // A line of the log each.
			log.WithField("problem", problem).Error("the configuration was not reloaded: the one before stays in effect, unchanged")
		}
	}
	r.last.Store(report)
}

// serveReloads reads the configuration anew whenever it is asked to, from when
// the daemon is ready until ctx ends.
func (d *daemon) serveReloads(ctx context.Context) error {
	defer d.reloads.closing.Wait()
	select {
	case <-ctx.Done():
		return nil
	case <-d.reloads.served:
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.reloads.asked:
			d.notify.reloading()
			err := d.reload(ctx)
			if ended(ctx) {
				return nil // The next start reads the file.
			}
			d.reloads.note(component(d.log, "reload"), err)
			d.notify.ready()
		}
	}
}

// reload takes over what the configuration's file says now, or changes nothing:
// what can fail is done before anything is replaced.
func (d *daemon) reload(ctx context.Context) error {
	cfg, err := readConfig(d.reloads.path)
	if err != nil {
		return err
	}
	old := d.current.Load()
	next, err := old.next(cfg, d.index)
	if err != nil {
		return err
	}
	if err := d.prepare(ctx, old, next); err != nil {
		return errors.Join(err, old.backends.Discard(next.backends))
	}
	d.replace(ctx, old, next)
	return nil
}

// prepare does all that can fail before next can take over. When it fails all is
// as before, but for what next has of its own.
func (d *daemon) prepare(ctx context.Context, old, next *generation) (err error) {
	gone := old.backends.Missing(next.backends)
	creating := map[string]int{}
	for _, b := range gone {
		creating[b.Name] = b.Retire()
	}
	defer func() {
		if err != nil {
			for _, b := range gone {
				b.Unretire()
			}
		}
	}()
	for _, b := range gone {
		if err := old.backends.LearnPods(ctx, b); err != nil {
			return err
		}
	}
	c := change{index: d.index, old: old, next: next, gone: gone, creating: creating}
	if problems := c.problems(); len(problems) > 0 {
		return problems
	}
	if problems := c.unreached(next.backends.Reach(ctx, old.backends)); len(problems) > 0 {
		return problems
	}
	return c.keepHandlers(state.SandboxHandlers(d.store).PutAll)
}

// replace makes next the newest generation. Nothing in it can fail.
func (d *daemon) replace(ctx context.Context, old, next *generation) {
	next.complete(old)
	d.current.Store(next)
	d.index.Keep(next.table) // What only the old one needed on disk it no longer does.
	old.backends.Replace(next.backends)
	old.images.Replace(next.images)
	old.front.Replace(next.front)
	d.hooks.Configure(next.cfg.Handlers)
	d.serviceEnv.Configure(next.cfg.Handlers)
	d.relog(next.cfg.Log)
	d.closeLater(ctx, old, old.backends.Missing(next.backends))
	d.learnHandlers(ctx, next)
}

// relog sets how much is logged, and in which form.
func (d *daemon) relog(cfg configs.Log) {
	if level, err := logrus.ParseLevel(cfg.Level); err == nil { // It was validated.
		d.log.Logger.SetLevel(level)
	}
	d.log.Logger.SetFormatter(formatter(cfg))
}

// closeLater closes the connections to backends that are gone when no call of
// the generations that had them is left, unless ctx ends before.
func (d *daemon) closeLater(ctx context.Context, old *generation, gone []*backend.Backend) {
	before, over, done := d.reloads.before, old.calls.finish(), make(chan struct{})
	d.reloads.before = done
	d.reloads.closing.Go(func() {
		for _, calls := range []<-chan struct{}{before, over} {
			select {
			case <-calls:
			case <-ctx.Done():
				return
			}
		}
		defer close(done)
		for _, b := range gone {
			if _, again := d.current.Load().cfg.Backends[b.Name]; !again {
				d.index.Forget(b.Name)
			}
		}
		if err := old.backends.Drop(gone); err != nil {
			d.log.WithError(err).Warn("the connection to a backend that was taken out of the configuration did not close in order")
		}
	})
}

// learnHandlers finds pods of runtimes that no handler stood for until now.
func (d *daemon) learnHandlers(ctx context.Context, g *generation) {
	nameless := map[string]bool{}
	for _, s := range d.index.Sandboxes(func(s routing.Sandbox) bool { return s.Handler == "" }) {
		nameless[s.Backend] = true
	}
	for name := range nameless {
		b := g.backends.Get(name)
		if b == nil {
			continue
		}
		if err := g.backends.LearnPods(ctx, b); err != nil {
			d.log.WithError(err).Warn("pods that ran before their handler was configured are known by it after the next restart")
		}
	}
}
