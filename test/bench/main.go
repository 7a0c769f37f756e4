// Command bench measures what cri-proxy costs: the same calls on the same fake
// runtime directly, through a byte relay, through a plain gRPC forwarder and
// through cri-proxy, each in a process of its own, in turns.
//
// It writes the numbers as JSON and as the tables of docs/performance.md. It
// knows cri-proxy as its built binary only. Its own binary also plays the other
// processes ("bench fake", "bench relay", "bench raw").
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/measure"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := execute(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		logrus.NewEntry(logrus.New()).Error(err)
		os.Exit(1)
	}
}

// execute plays a role or measures.
func execute(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) > 0 {
		if play, ok := roles()[args[0]]; ok {
			return play(ctx, args[1:])
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	logger := logrus.New()
	logger.SetOutput(stderr)
	return o.run(ctx, logrus.NewEntry(logger))
}

// options are the command line.
type options struct {
	command string // what to type for the same again
	runs    int
	short   bool
	json    string
	docs    string
	plan    measure.Plan
}

func parse(args []string) (options, error) {
	self, err := os.Executable()
	if err != nil {
		return options{}, err
	}
	o := options{plan: measure.Full(self, "")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.plan.Proxy, "proxy", "", "the cri-proxy to measure")
	flags.IntVar(&o.runs, "runs", 3, "how often to go through everything; a budget is missed if it fails in most runs")
	flags.IntVar(&o.plan.Rounds, "rounds", o.plan.Rounds, "rounds of each workload in a run")
	flags.Float64Var(&o.plan.Scale, "scale", o.plan.Scale, "factor on the operations in a round")
	flags.BoolVar(&o.short, "short", false, "tiny nodes and few rounds: shows that it works, says nothing about budgets")
	flags.StringVar(&o.json, "json", "", "file for all numbers")
	flags.StringVar(&o.docs, "docs", "", "document whose tables are to be renewed")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if o.plan.Proxy == "" || o.runs < 1 || o.plan.Rounds < 1 || flags.NArg() > 0 {
		return options{}, errors.New("bench needs -proxy FILE, at least one run and one round, and no arguments beside flags")
	}
	if o.plan.Proxy, err = filepath.Abs(o.plan.Proxy); err != nil {
		return options{}, err
	}
	o.command = command(flags)
	if o.short {
		o.plan.Nodes, o.plan.Middle, o.plan.Rounds, o.plan.Scale = []int{20, 40}, 20, 1, 0.02
	}
	return o, nil
}

// command is the make command with these flags; those that only name files are
// the Makefile's own.
func command(flags *flag.FlagSet) string {
	var changed []string
	flags.Visit(func(f *flag.Flag) {
		if f.Name != "proxy" && f.Name != "json" && f.Name != "docs" {
			changed = append(changed, "-"+f.Name+"="+f.Value.String())
		}
	})
	if len(changed) == 0 {
		return "make bench"
	}
	return "make bench BENCHFLAGS='" + strings.Join(changed, " ") + "'"
}

// run measures and writes the results.
func (o options) run(ctx context.Context, log *logrus.Entry) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	lastMinute, _, _ := strings.Cut(string(load), " ")
	r := report.Report{
		Load: lastMinute, Command: o.command, Date: time.Now().UTC(), Rounds: o.plan.Rounds,
		Machine: fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
	}
	for i := range o.runs {
		run, err := measure.Run(ctx, o.plan, log.WithField("run", i+1))
		if err != nil {
			return err
		}
		r.Runs = append(r.Runs, run)
	}
	if err := o.writeJSON(r); err != nil {
		return err
	}
	return o.writeDocs(r)
}

func (o options) writeJSON(r report.Report) error {
	if o.json == "" {
		return nil
	}
	content, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(content, '\n'), 0o644)
}

func (o options) writeDocs(r report.Report) error {
	if o.docs == "" {
		return nil
	}
	document, err := os.ReadFile(o.docs)
	if err != nil {
		return err
	}
	renewed, err := r.Insert(string(document))
	if err != nil {
		return fmt.Errorf("renew %s: %w", o.docs, err)
	}
	return os.WriteFile(o.docs, []byte(renewed), 0o644)
}
