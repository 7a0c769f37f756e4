package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/critest"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// bench runs the combinations one after the other, each on containerds of its
// own, so that nothing is left over from the one before.
type bench struct {
	settings

	rig    *rig.Rig
	images string // what critest's images are made from
	commit string // what the proxy was built from
	direct map[yardstick]critest.Report
	passes int
}

// result is one combination, done.
type result struct {
	combination

	direct, proxied critest.Report
}

func (r result) lost() []critest.Difference { return r.direct.Lost(r.proxied) }

func (b *bench) runAll(ctx context.Context) ([]result, error) {
	var results []result
	for _, combination := range combinations() {
		if b.only != "" && !strings.ContainsRune(b.only, combination.letter) {
			continue
		}
		fmt.Fprintf(b.out, "\n(%c) %s\n", combination.letter, combination.what)
		direct, err := b.yardstick(ctx, combination.direct)
		if err != nil {
			return nil, err
		}
		proxied, err := b.proxied(ctx, combination)
		if err != nil {
			return nil, err
		}
		results = append(results, result{combination: combination, direct: direct, proxied: proxied})
	}
	return results, nil
}

// yardstick runs critest directly, once for each handler.
func (b *bench) yardstick(ctx context.Context, y yardstick) (critest.Report, error) {
	if report, ok := b.direct[y]; ok {
		fmt.Fprintf(b.out, "    directly           %s (from above)\n", counts(report))
		return report, nil
	}
	options := rig.ContainerdOptions{Name: fmt.Sprintf("direct%d", len(b.direct)), Old: y.old, HostPorts: true}
	if y.handler != plain {
		options.Handlers = []string{y.handler}
	}
	backends, err := b.start(ctx, options)
	if err != nil {
		return nil, err
	}
	report, err := b.critest(ctx, "directly", backends[0].Endpoint(), y.handler)
	if err != nil {
		return nil, err
	}
	b.direct[y] = report
	return report, stop(backends)
}

// proxied runs critest through a proxy.
func (b *bench) proxied(ctx context.Context, c combination) (critest.Report, error) {
	options := c.backends
	for index := range options {
		options[index].Name = fmt.Sprintf("%c%s", c.letter, options[index].Name)
	}
	backends, err := b.start(ctx, options...)
	if err != nil {
		return nil, err
	}
	proxy, err := b.rig.Proxy(ctx, rig.ProxyOptions{Name: fmt.Sprintf("proxy-%c", c.letter), DefaultHandler: plain, Config: c.config(backends)})
	if err != nil {
		return nil, err
	}
	report, err := b.critest(ctx, "through the proxy", proxy.Endpoint(), c.handler)
	if err != nil {
		return nil, err
	}
	return report, errors.Join(proxy.Stop(), stop(backends))
}

func (b *bench) start(ctx context.Context, options ...rig.ContainerdOptions) ([]*rig.Containerd, error) {
	var started []*rig.Containerd
	for _, options := range options {
		containerd, err := b.rig.Containerd(ctx, options)
		if err != nil {
			return nil, err
		}
		started = append(started, containerd)
	}
	return started, nil
}

// stop leaves the processors to the next pass.
func stop(backends []*rig.Containerd) error {
	var problems []error
	for _, backend := range backends {
		problems = append(problems, backend.Stop())
	}
	return errors.Join(problems...)
}

func (b *bench) critest(ctx context.Context, what, endpoint, handler string) (critest.Report, error) {
	b.passes++
	begin := time.Now()
	report, err := critest.Run(ctx, critest.Options{
		Program: filepath.Join(b.rig.Parts.CRITools, "critest.test"), Endpoint: endpoint, Handler: handler, Focus: b.focus, Host: true,
		Dir: filepath.Join(cmp.Or(b.reports, filepath.Join(b.rig.Dir, "critest")), fmt.Sprintf("%d-%s", b.passes, filepath.Base(filepath.Dir(endpoint)))),
	})
	if err != nil {
		return nil, fmt.Errorf("critest on %s, handler %s: %w", endpoint, handler, err)
	}
	fmt.Fprintf(b.out, "    %-18s %s in %s\n", what, counts(report), time.Since(begin).Round(time.Second))
	return report, nil
}

func counts(report critest.Report) string {
	c := report.Counts()
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
}

// printTable prints both counts of every combination.
func printTable(out io.Writer, results []result) {
	aligned := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(aligned, "\nCOMBINATION\tHANDLER\tDIRECTLY\tTHROUGH THE PROXY\tLOST")
	for _, result := range results {
		fmt.Fprintf(aligned, "(%c) %s\t%s\t%s\t%s\t%d\n",
			result.letter, result.what, result.handler, counts(result.direct), counts(result.proxied), len(result.lost()))
	}
	if err := aligned.Flush(); err != nil {
		fmt.Fprintln(out, err)
	}
}
