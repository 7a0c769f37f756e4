package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

func (r report) writeTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	ready := "yes"
	if !r.Ready {
		ready = "no: " + r.NotReady
	}
	fmt.Fprintf(w, "READY\t%s\nLISTEN\t%s\nVERSION\t%s, since %s\nROUTES\t%d sandboxes, %d containers\n",
		ready, r.Listen, r.Version, r.Started.Format(time.RFC3339), r.Sandboxes, r.Containers)
	fmt.Fprintf(w, "HOOKS\t%d pending, %d failed in the last day\nPULLS\t%d in flight\n", r.Hooks.Pending, r.Hooks.Failed, r.PullsInFlight)
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
	r.printBackends(w)
	if r.LastReload != nil && !r.LastReload.Success {
		fmt.Fprintf(w, "\nthe configuration was not reloaded: %s\n", r.LastReload.Error)
	}
	return w.Flush()
}

// printBackends prints the backends, and below them what was or is wrong.
func (r report) printBackends(w *tabwriter.Writer) {
	fmt.Fprintf(w, "\nBACKEND\tSTATE\tSINCE\tLATENCY\tRUNTIME\tCGROUPS\tENDPOINT\n")
	for _, b := range r.Backends {
		up, latency := "up", "-"
		if !b.Up {
			up = "away"
		}
		if b.LatencySeconds > 0 {
			latency = time.Duration(b.LatencySeconds * float64(time.Second)).Round(10 * time.Microsecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			b.Name, up, b.Since.Format(time.RFC3339), latency, strings.TrimSpace(b.Runtime+" "+b.Version), b.CgroupDriver, b.Endpoint)
	}
	for _, b := range r.Backends {
		switch {
		case b.Error != "":
			fmt.Fprintf(w, "\n%s is away: %s\n", b.Name, b.Error)
		case b.Unusable != "":
			fmt.Fprintf(w, "\n%s takes no new sandboxes: %s\n", b.Name, b.Unusable)
		case b.LastError != "":
			fmt.Fprintf(w, "\n%s was away at %s: %s\n", b.Name, b.LastErrorTime.Format(time.RFC3339), b.LastError)
		}
	}
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
