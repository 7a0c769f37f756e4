// Demo shows what cri-proxy is for on this machine: it builds two containerds
// and the proxy, runs a pod on each behind one socket, pulls a private image for
// one of them only, delivers hooks, and tells at the end in a table what was seen.
// It needs root, uses nothing of the machine's own container runtimes, and leaves nothing
// behind, Ctrl-C included.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	r, err := build(ctx, out)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			fmt.Fprintln(out, "interrupted; cleaning up")
		}
		err = errors.Join(err, r.Close(ctx))
	}()
	d := &demo{rig: r, out: out}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	results := d.show(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed := table(out, results); failed > 0 {
		r.Logs(out)
		return fmt.Errorf("%d of %d failed", failed, len(results))
	}
	return nil
}

// build builds what is not built yet and starts the registry.
func build(ctx context.Context, out io.Writer) (*rig.Rig, error) {
	root, err := rig.Root()
	if err != nil {
		return nil, err
	}
	parts, err := rig.Build(ctx, root, out)
	if err != nil {
		return nil, err
	}
	r, err := rig.New(ctx, rig.Options{Root: root, Parts: parts})
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(out, "building cri-proxy …")
	if err := r.BuildProxy(ctx); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

// result is one line of the table.
type result struct {
	what  string
	shown string
	err   error
}

// table prints the results and returns how many failed.
func table(out io.Writer, results []result) int {
	failed := 0
	aligned := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(aligned, "\nRESULT\tWHAT\tSEEN")
	for _, result := range results {
		verdict, shown := "ok", result.shown
		if result.err != nil {
			failed++
			verdict, shown = "FAILED", result.err.Error()
		}
		fmt.Fprintf(aligned, "%s\t%s\t%s\n", verdict, result.what, shown)
	}
	if err := aligned.Flush(); err != nil {
		return failed + 1
	}
	return failed
}
