// Conformance runs the whole of critest on real containerds, once directly and
// once through cri-proxy, for several ways to put the proxy in front of them. It
// fails if a spec that passes directly fails or is skipped through the proxy. A
// run of everything writes its result into the documentation.
//
// It needs root, what `test/real/deps.sh conformance` installs, the host's ports
// 12000 to 12003, and about two minutes for each of seven passes. The CNI
// plugin for host ports leaves its own empty chains in the machine's iptables;
// all else is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cri-proxy/cri-proxy/test/real/critest"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// settings are the command's flags.
type settings struct {
	only    string // letters of combinations, "" for all
	focus   string // of specs, for a developer
	reports string // a folder that critest's own reports and output stay in
	out     io.Writer
}

func main() {
	s := settings{out: os.Stdout}
	flag.StringVar(&s.only, "only", "", "run only these combinations, such as `ac`; the documentation is then left alone")
	flag.StringVar(&s.focus, "focus", "", "run only the specs that match this `regexp`; the documentation is then left alone")
	flag.StringVar(&s.reports, "reports", "", "keep critest's reports and output in this `folder`")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: conformance [flags]\n\n%s\nFlags:\n", listing())
		flag.PrintDefaults()
	}
	flag.Parse()
	if unknown := strings.Trim(s.only, letters()); unknown != "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	b, err := newBench(ctx, s, root)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			fmt.Fprintln(s.out, "interrupted; cleaning up")
		}
		err = errors.Join(err, b.rig.Close(ctx))
	}()
	results, err := b.runAll(ctx)
	if err != nil {
		return err
	}
	printTable(s.out, results)
	if s.only == "" && s.focus == "" {
		if err := replace(filepath.Join(root, "docs", "conformance.md"), b.text(results)); err != nil {
			return err
		}
	}
	return verdict(results)
}

// verdict names every spec that the proxy lost.
func verdict(results []result) error {
	var problems []error
	for _, result := range results {
		for _, lost := range result.lost() {
			problems = append(problems, fmt.Errorf("(%c) %s: %s through the proxy, and passed directly\n%s",
				result.letter, lost.Spec, lost.State, lost.Reason))
		}
		if result.direct.Counts().Passed == 0 {
			problems = append(problems, fmt.Errorf("(%c) no spec passed directly: there is nothing to compare", result.letter))
		}
	}
	return errors.Join(problems...)
}

// newBench builds what is not built yet, starts the registry and fills it.
func newBench(ctx context.Context, s settings, root string) (*bench, error) {
	cache, err := rig.Cache()
	if err != nil {
		return nil, err
	}
	parts, err := rig.Build(ctx, root, s.out)
	if err != nil {
		return nil, err
	}
	if err := parts.BuildContainerd17(ctx, root, s.out); err != nil {
		return nil, err
	}
	layers, err := critest.EnsureLayers(ctx, cache, s.out)
	if err != nil {
		return nil, err
	}
	r, err := rig.New(ctx, rig.Options{Root: root, Parts: parts})
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(s.out, "building cri-proxy …")
	commit := commit(ctx, root) // now: the checkout may change while critest runs
	if err := errors.Join(r.BuildProxy(ctx), critest.Push(ctx, r, layers)); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return &bench{settings: s, rig: r, images: layers.Versions, commit: commit, direct: map[yardstick]critest.Report{}}, nil
}
