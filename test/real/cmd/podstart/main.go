// Podstart measures what cri-proxy costs the start of a pod on a real containerd:
// the calls that a kubelet makes, directly and through a proxy with that one
// backend, one pod after the other. A run of full length writes its result into
// the documentation. It fails if the budget is surely missed.
//
// It needs root and a machine that does nothing else. What it starts is removed.
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
	"syscall"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// fullLength is the number of pairs that a result in the documentation rests on.
const fullLength = 100

func main() {
	pairs := flag.Int("n", fullLength, fmt.Sprintf("start so many pods on each side; with less than %d the documentation is left alone", fullLength))
	flag.Parse()
	if *pairs < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pairs, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "podstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pairs int, out io.Writer) error {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	r, err := measureOn(ctx, root, pairs, out)
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\n", r.text())
	if pairs >= fullLength {
		if err := replace(filepath.Join(root, "docs", "performance.md"), r.text()); err != nil {
			return err
		}
	}
	if r.verdict() == missed {
		return fmt.Errorf("the budget is missed: %s", r.ratio())
	}
	return nil
}

// measureOn makes a node, measures on it, and removes it.
func measureOn(ctx context.Context, root string, pairs int, out io.Writer) (result result, err error) {
	parts, err := rig.Build(ctx, root, out)
	if err != nil {
		return result, err
	}
	made, err := rig.New(ctx, rig.Options{Root: root, Parts: parts})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, made.Close(ctx)) }()
	result.about = describe(ctx, root, parts, pairs)
	n, err := newNode(ctx, made, out)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	err = n.measure(ctx, pairs, &result)
	return result, err
}
