package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildPrometheus adds Prometheus and its promtool, which take two cores some
// minutes the first time. Call it before New.
func (p *Parts) BuildPrometheus(ctx context.Context, root string, progress io.Writer) error {
	return p.add(ctx, tool{
		name: "prometheus", module: "github.com/prometheus/prometheus",
		stamp: "github.com/prometheus/common/version.Version",
		// Without the clients of all clouds, which are most of it.
		builds: [][]string{{"build", "-trimpath", "-tags=remove_all_sd", "tool"}},
		folder: func(p *Parts) *string { return &p.Prometheus },
	}, root, progress)
}

// Prometheus is a server on the loopback interface. It has no pages, only its API.
type Prometheus struct {
	URL string

	process process
}

// Prometheus starts a server with a configuration file, and returns when it
// answers queries.
func (r *Rig) Prometheus(ctx context.Context, config string) (*Prometheus, error) {
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + ports[0]
	p := &Prometheus{URL: "http://" + address, process: process{
		name: "prometheus", path: filepath.Join(r.Parts.Prometheus, "prometheus"), log: filepath.Join(r.Dir, "prometheus.log"),
		args: []string{"--config.file", config, "--storage.tsdb.path", filepath.Join(r.Dir, "prometheus"), "--web.listen-address", address},
	}}
	r.mu.Lock()
	r.prometheus = append(r.prometheus, p)
	r.mu.Unlock()
	return p, p.process.start(ctx, p.ready)
}

func (p *Prometheus) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/-/ready", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("it is not ready: %s", answer.Status)
	}
	return errors.Join(err, answer.Body.Close())
}

// Promtool runs Prometheus' own checker in a folder, with an input if that is not
// nil. What it printed is in the error.
func (p *Parts) Promtool(ctx context.Context, folder string, input io.Reader, arguments ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.Prometheus, "promtool"), arguments...)
	cmd.Dir, cmd.Stdin = folder, input
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("promtool %s: %w\n%s", strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}
