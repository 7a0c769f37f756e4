package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
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
}

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
	for _, b := range g.backends.All() {
		s := b.State()
		entry := backendReport{
			Name: b.Name, Endpoint: b.Config.Endpoint, Up: s.Up, Since: s.Since,
			Runtime: s.Runtime, Version: s.Version, CgroupDriver: s.CgroupDriver,
		}
		if s.Err != nil {
			entry.Error = s.Err.Error()
		}
		if err := g.backends.Usable(b); err != nil {
			entry.Unusable = status.Convert(err).Message()
		}
		r.Backends = append(r.Backends, entry)
	}
	return r
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
	c := &cobra.Command{
		Use: "status", Short: "Show the handlers and backends of the running proxy", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
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
			return r.print(c.OutOrStdout())
		},
	}
	addOutput(c, f)
	addAdmin(c, f)
	return c
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
	endpoint := f.admin
	if endpoint == "" {
		cfg, err := readConfig(f.config)
		if err != nil {
			return "", fmt.Errorf("the admin socket is not known, so name it by --admin: %w", err)
		}
		endpoint = cfg.Admin.Listen
	}
	socketPath, err := configs.SocketPath(endpoint)
	if err != nil {
		return "", &usageError{fmt.Errorf("--admin: %w", err)}
	}
	return socketPath, nil
}

// addAdmin adds --admin to a command, and to those below it.
func addAdmin(c *cobra.Command, f *flags) {
	c.PersistentFlags().StringVar(&f.admin, "admin", "", "admin `socket` (default: the configuration's admin.listen)")
}

func (r report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	ready := "yes"
	if !r.Ready {
		ready = "no: " + r.NotReady
	}
	fmt.Fprintf(w, "READY\t%s\nLISTEN\t%s\nVERSION\t%s, since %s\nROUTES\t%d sandboxes, %d containers\n",
		ready, r.Listen, r.Version, r.Started.Format(time.RFC3339), r.Sandboxes, r.Containers)
	if r.StateSetAside != "" {
		fmt.Fprintf(w, "STATE\tthe old file was corrupt and is now %s\n", r.StateSetAside)
	}
	r.printServiceCache(w)
	r.printReload(w)
	fmt.Fprintf(w, "\nHANDLER\tBACKEND\tRUNTIME\tPODS\tCONTAINERS\n")
	for _, h := range r.Handlers {
		name := h.Name
		if name == r.DefaultHandler {
			name += " (default)"
		}
		if h.Draining {
			name += " (draining)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\n", name, h.Backend, orDefault(h.Runtime), h.Sandboxes, h.Containers)
	}
	r.printPreloads(w)
	fmt.Fprintf(w, "\nBACKEND\tSTATE\tSINCE\tRUNTIME\tCGROUPS\tENDPOINT\n")
	for _, b := range r.Backends {
		up := "up"
		if !b.Up {
			up = "away"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, up, b.Since.Format(time.RFC3339), strings.TrimSpace(b.Runtime+" "+b.Version), b.CgroupDriver, b.Endpoint)
	}
	for _, b := range r.Backends {
		if b.Error != "" {
			fmt.Fprintf(w, "\n%s is away: %s\n", b.Name, b.Error)
		} else if b.Unusable != "" {
			fmt.Fprintf(w, "\n%s takes no new sandboxes: %s\n", b.Name, b.Unusable)
		}
	}
	if r.LastReload != nil && !r.LastReload.Success {
		fmt.Fprintf(w, "\nthe configuration was not reloaded: %s\n", r.LastReload.Error)
	}
	return w.Flush()
}

// printServiceCache prints where the Service variables come from, if there are any.
func (r report) printServiceCache(w *tabwriter.Writer) {
	if r.ServiceCache == nil {
		return
	}
	s := *r.ServiceCache
	line := fmt.Sprintf("%d from %s", s.Services, s.Source)
	if !s.Synced {
		line = "not known yet from " + s.Source
	}
	if s.Error != "" {
		line += ": " + s.Error
	}
	fmt.Fprintf(w, "SERVICES\t%s\n", line)
}

// printReload prints how the last reload went, if there was one.
func (r report) printReload(w *tabwriter.Writer) {
	switch last := r.LastReload; {
	case last == nil:
	case last.Success:
		fmt.Fprintf(w, "RELOAD\tdone %s\n", last.Time.Format(time.RFC3339))
	default:
		fmt.Fprintf(w, "RELOAD\trefused %s: the configuration before that stays in effect\n", last.Time.Format(time.RFC3339))
	}
}

// printPreloads prints what became of the preloaded images, if there are any.
func (r report) printPreloads(w *tabwriter.Writer) {
	title := "\nPRELOAD\tHANDLER\tSTATE\n"
	for _, h := range r.Handlers {
		for _, p := range h.Preload {
			state := p.State
			if p.Reason != "" {
				state += ": " + p.Reason
			}
			if !p.NextTry.IsZero() {
				state += "; next try " + p.NextTry.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s%s\t%s\t%s\n", title, p.Image, h.Name, state)
			title = ""
		}
	}
}

func orDefault(runtime string) string {
	if runtime == "" {
		return "(its default)"
	}
	return runtime
}
