package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/report"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/stand"
)

// build builds a program from its folder and returns where it is.
func build(t *testing.T, folder, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	cmd.Dir = folder
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, output)
	}
	return path
}

// TestShort runs the real thing, in small: all contestants answer all workloads
// in full, every number is there, and the tables get to their place.
func TestShort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	numbers, document := filepath.Join(dir, "bench.json"), filepath.Join(dir, "performance.md")
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(document, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), build(t, ".", "bench"),
		"-short", "-runs", "1", "-json", numbers, "-docs", document, "-proxy", build(t, "../../cmd/cri-proxy", "cri-proxy"))
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bench: %v\n%s", err, output)
	}
	checkNumbers(t, numbers)
	renewed, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Performance", "### Budgets", "| " + load.PodStart + " (20) |", "| " + stand.Renamed + " |"} {
		if !strings.Contains(string(renewed), want) {
			t.Errorf("the document has no %q:\n%s", want, renewed)
		}
	}
}

func checkNumbers(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	run := r.Runs[0]
	workloads := []string{load.Version, load.ContainerStatus, load.PLEGSecond, load.PodStart, load.ListContainers, load.ListPodSandbox, load.ListContainers, load.ListPodSandbox}
	if got, want := len(run.Results), 2*(len(workloads)*len(stand.Names())+1); got != want {
		t.Errorf("there are %d results, want %d", got, want)
	}
	for _, result := range run.Results {
		if isHooked := result.Contestant == stand.Hooked; isHooked != (result.Commits > 0) {
			t.Errorf("%s commits %.1f times in each operation of %s", result.Contestant, result.Commits, result.Workload)
		}
		if result.Operations == 0 || result.P50 <= 0 || result.P99 < result.P50 || result.PerSecond <= 0 || result.P50ToDirect <= 0 {
			t.Errorf("a number is missing or impossible: %+v", result)
		}
		if (result.Contestant == stand.Direct) != (result.CPU == 0) {
			t.Errorf("the processor time of %s is %s", result.Contestant, result.CPU)
		}
	}
	if got, want := len(run.Memory), len(stand.Names())-1; got != want {
		t.Errorf("the memory of %d processes is there, want %d", got, want)
	}
	for _, m := range run.Memory {
		if m.Start <= 0 || m.Node <= 0 || m.Peak <= 0 {
			t.Errorf("a number is missing: %+v", m)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no proxy":     {},
		"no runs":      {"-proxy", "x", "-runs", "0"},
		"no rounds":    {"-proxy", "x", "-rounds", "0"},
		"an argument":  {"-proxy", "x", "y"},
		"unknown flag": {"-x"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
