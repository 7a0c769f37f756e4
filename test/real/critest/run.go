package critest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// seed fixes the order of the specs.
const seed = "1"

// within is more than three times what the whole suite takes on two busy cores.
const within = 15 * time.Minute

// Options is what Run needs.
type Options struct {
	Program  string // critest, built with `go test -c`
	Endpoint string // "unix:///…", of both services
	Handler  string // that every pod runs under
	Focus    string // a regular expression on the names of specs, "" for all
	Skip     string // the same for those to leave out
	Host     bool   // specs that use ports and shared memory of this machine are among them
	Dir      string // where it leaves its report and its output, made if it is not there
}

// Run runs critest, one spec after the other and always in the same order. That
// specs fail is no error; that critest does not run to its end is one.
func Run(ctx context.Context, options Options) (report Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return nil, err
	}
	if !options.Host {
		return options.run(ctx)
	}
	if err := portsFree(ctx); err != nil {
		return nil, err
	}
	before, err := segments()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeSegments(ctx, before)) }()
	return options.run(ctx)
}

func (o Options) run(ctx context.Context) (Report, error) {
	if err := os.RemoveAll(o.report()); err != nil { // of an earlier run
		return nil, err
	}
	output, runErr := o.command(ctx).CombinedOutput()
	if err := os.WriteFile(filepath.Join(o.Dir, "output"), output, 0o644); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(o.report())
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, fmt.Errorf("critest did not come to its end: %w\n%s", errors.Join(runErr, err), ending(output))
	}
	return parse(content)
}

func (o Options) report() string { return filepath.Join(o.Dir, "report.json") }

func (o Options) command(ctx context.Context) *exec.Cmd {
	arguments := []string{
		"-runtime-endpoint", o.Endpoint, "-image-endpoint", o.Endpoint, "-runtime-handler", o.Handler,
		"-runtime-service-timeout", "120s",
		"-ginkgo.seed", seed, "-ginkgo.randomize-all=false", "-ginkgo.no-color",
		"-ginkgo.json-report", o.report(),
	}
	if o.Focus != "" {
		arguments = append(arguments, "-ginkgo.focus", o.Focus)
	}
	if o.Skip != "" {
		arguments = append(arguments, "-ginkgo.skip", o.Skip)
	}
	return exec.CommandContext(ctx, o.Program, arguments...)
}

// ending is the part of critest's output where it says why it ended.
func ending(output []byte) string {
	const bytesShown = 4096
	return string(bytes.TrimSpace(output[max(0, len(output)-bytesShown):]))
}

// portsFree says which of the ports that critest uses on the host is taken.
func portsFree(ctx context.Context) error {
	var listen net.ListenConfig
	for port := 12000; port <= hostPort; port++ {
		listener, err := listen.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("critest needs port %d of this machine: %w", port, err)
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// parse reads Ginkgo's report.
func parse(content []byte) (Report, error) {
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   State
			NumAttempts             int
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(content, &suites); err != nil {
		return nil, fmt.Errorf("read critest's report: %w", err)
	}
	report := Report{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			if spec.LeafNodeType != "It" || spec.NumAttempts == 0 {
				continue // It was not to run.
			}
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			report[report.unique(strings.TrimPrefix(name, "[k8s.io] "))] = Outcome{State: spec.State, Reason: spec.Failure.Message}
		}
	}
	return report, nil
}
