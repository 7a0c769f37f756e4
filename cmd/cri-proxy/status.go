package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// report is the body of GET /v1/status.
type report struct {
	Version        string          `json:"version"`
	Started        time.Time       `json:"started"`
	Listen         string          `json:"listen"`
	Ready          bool            `json:"ready"`
	NotReady       string          `json:"notReady,omitempty"` // Why.
	DefaultHandler string          `json:"defaultHandler"`
	Handlers       []handlerReport `json:"handlers"`
	Backends       []backendReport `json:"backends"`
	Sandboxes      int             `json:"sandboxes"`
	Containers     int             `json:"containers"`
	Hooks          hooks.Counts    `json:"hooks"`
	PullsInFlight  int             `json:"pullsInFlight"`
	StateSetAside  string          `json:"stateSetAside,omitempty"` // Where a corrupt state file went.
	// ServiceCache is where the Service variables come from.
	ServiceCache *serviceenv.State `json:"serviceCache,omitempty"`
	// LastReload is missing before the first one.
	LastReload *reloadReport `json:"lastReload,omitempty"`
}

type handlerReport struct {
	Name    string `json:"name"`
	Backend string `json:"backend"`
	Runtime string `json:"runtime"` // "" is the backend's default.
	// Draining: the configuration no longer has it, and it has pods still.
	Draining   bool `json:"draining,omitempty"`
	Sandboxes  int  `json:"sandboxes"`
	Containers int  `json:"containers"`
	// Preload is what became of the images that it has in its store from the start.
	Preload []imageservice.Preload `json:"preload,omitempty"`
}

type backendReport struct {
	Name         string    `json:"name"`
	Endpoint     string    `json:"endpoint"`
	Up           bool      `json:"up"`
	Since        time.Time `json:"since"`
	Error        string    `json:"error,omitempty"`
	Unusable     string    `json:"unusable,omitempty"` // Why it takes no new sandboxes.
	Runtime      string    `json:"runtime,omitempty"`
	Version      string    `json:"version,omitempty"`
	CgroupDriver string    `json:"cgroupDriver,omitempty"`
	// LatencySeconds is how long it took to answer just now; missing when it did not.
	LatencySeconds float64 `json:"latencySeconds,omitempty"`
	// LastError is why it was away last, also when it is up again.
	LastError     string    `json:"lastError,omitempty"`
	LastErrorTime time.Time `json:"lastErrorTime,omitzero"`
}

// latencyTime bounds how long a backend's answer is waited for.
const latencyTime = time.Second

func (d *daemon) report(ctx context.Context) report {
	g := d.current.Load()
	r := report{
		Version: readVersion().Version, Started: d.started, Listen: d.cfg.Server.Listen,
		DefaultHandler: g.cfg.DefaultHandler, StateSetAside: d.store.ResetFrom(), ServiceCache: d.serviceEnv.State(), LastReload: d.reloads.last.Load(),
	}
	if err := d.ready(ctx); err != nil {
		r.NotReady = err.Error()
	}
	r.Ready = r.NotReady == ""
	r.Sandboxes, r.Containers = d.index.Count()
	r.Handlers = d.handlerReports(g)
	r.Backends = backendReports(ctx, g.backends)
	r.PullsInFlight = g.images.Pulling()
	var err error
	if r.Hooks, err = d.hooks.Counts(); err != nil {
		d.log.WithError(err).Warn("the hooks cannot be counted for the status")
	}
	return r
}

// backendReports asks the backends side by side how fast they are.
func backendReports(ctx context.Context, set *backend.Set) []backendReport {
	ctx, cancel := context.WithTimeout(ctx, latencyTime)
	defer cancel()
	all := set.All()
	reports := make([]backendReport, len(all))
	var wg sync.WaitGroup
	for i, b := range all {
		wg.Go(func() { reports[i] = backendReportOf(ctx, set, b) })
	}
	wg.Wait()
	return reports
}

func backendReportOf(ctx context.Context, set *backend.Set, b *backend.Backend) backendReport {
	s := b.State()
	entry := backendReport{
		Name: b.Name, Endpoint: b.Config.Endpoint, Up: s.Up, Since: s.Since,
		Runtime: s.Runtime, Version: s.Version, CgroupDriver: s.CgroupDriver, LastErrorTime: s.LastErrAt,
	}
	if s.Err != nil {
		entry.Error = s.Err.Error()
	}
	if s.LastErr != nil {
		entry.LastError = s.LastErr.Error()
	}
	if err := set.Usable(b); err != nil {
		entry.Unusable = status.Convert(err).Message()
	}
	if s.Up {
		if took, err := b.Latency(ctx); err == nil {
			entry.LatencySeconds = took.Seconds()
		}
	}
	return entry
}

// handlerReports returns the configured handlers and those that drain, as long
// as they have something left, by name.
func (d *daemon) handlerReports(g *generation) []handlerReport {
	loads := d.index.Loads()
	var all []handlerReport
	for _, name := range slices.Sorted(slices.Values(slices.Concat(g.table.Names(), g.table.Draining()))) {
		h, err := g.table.Find(name)
		load := loads[name]
		if err != nil || (h.Draining && load == routing.Load{}) {
			continue
		}
		all = append(all, handlerReport{
			Name: h.Name, Backend: h.Backend, Runtime: h.Runtime, Draining: h.Draining,
			Sandboxes: load.Sandboxes, Containers: load.Containers, Preload: g.images.Preloads(name),
		})
	}
	return all
}

func (d *daemon) statusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(d.report(q.Context())); err != nil {
			d.log.WithError(err).Debug("status was not sent")
		}
	})
}

func newStatus(f *flags) *cobra.Command {
	var again bool
	c := &cobra.Command{
		Use: "status", Short: "Show the handlers and backends of the running proxy", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case !again:
				return showStatus(c, f)
			case f.output != "table":
				return &usageError{errors.New("--watch is for the table: for JSON, ask again")}
			}
			return watch(c.Context(), c.OutOrStdout(), func() error { return showStatus(c, f) })
		},
	}
	addOutput(c, f)
	addAdmin(c, f)
	c.Flags().BoolVarP(&again, "watch", "w", false, "show the table again every two seconds until interrupted")
	return c
}

func showStatus(c *cobra.Command, f *flags) error {
	body, err := askAdmin(c.Context(), f, "/v1/status")
	if err != nil {
		return err
	}
	if f.output == "json" {
		_, err := c.OutOrStdout().Write(body)
		return err
	}
	var r report
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("read the proxy's answer: %w", err)
	}
	return r.writeTable(c.OutOrStdout())
}

// askAdmin asks the running proxy, found by --admin or else by the
// configuration.
func askAdmin(ctx context.Context, f *flags, path string) ([]byte, error) {
	socketPath, err := adminSocket(f)
	if err != nil {
		return nil, err
	}
	return admin.Get(ctx, socketPath, path)
}

// adminSocket returns where the running proxy can be asked.
func adminSocket(f *flags) (string, error) {
	if f.admin != "" {
		socketPath, err := configs.SocketPath(f.admin)
		if err != nil {
			return "", &usageError{fmt.Errorf("--admin: %w", err)}
		}
		return socketPath, nil
	}
	cfg, err := readConfig(f.config)
	if err == nil {
		return configs.SocketPath(cfg.Admin.Listen)
	}
	// A proxy that has refused to reload this file runs on, and tells why.
	if running, unknown := configs.SocketPath(configs.AdminListen(f.config)); unknown == nil {
		if _, gone := os.Stat(running); gone == nil {
			return running, nil
		}
	}
	return "", fmt.Errorf("the admin socket is not known, so name it by --admin: %w", err)
}

// addAdmin adds --admin to a command, and to those below it.
func addAdmin(c *cobra.Command, f *flags) {
	c.PersistentFlags().StringVar(&f.admin, "admin", "", "admin `socket` (default: the configuration's admin.listen)")
}
