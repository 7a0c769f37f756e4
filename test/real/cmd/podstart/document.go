package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// What is between the markers is the command's; what is around them is kept.
const (
	beginMark = `<!-- podstart: what follows is written by "make podstart" -->`
	endMark   = "<!-- podstart: end -->"
)

// explanation stands above every result.
const explanation = `## The start of a pod on a real containerd

One containerd, one pod after the other, each of one container and with its image present: RunPodSandbox, PodSandboxStatus, ImageStatus three
times, CreateContainer, StartContainer, and ContainerStatus until the container runs, as the kubelet calls them, on one connection with the
kubelet's own options. Half of the pods are started directly, half through cri-proxy with this one backend, in pairs whose order alternates,
A B B A. The removal of a pod is not timed.

The ratio is the median of the pairs' ratios. Its interval is that of the sign test: two of the pairs' own ratios, whatever their distribution.
The budget is met when the whole interval is within it, and missed when the whole interval is beyond it.

`

// replace puts the text between the markers of the file.
func replace(file, text string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return fmt.Errorf("%s lacks the lines %q and %q that the result is written between", file, beginMark, endMark)
	}
	return os.WriteFile(file, []byte(before+beginMark+"\n\n"+explanation+text+"\n"+endMark+after), 0o644)
}

// describe names the command, the day, the machine and what was built.
func describe(ctx context.Context, root string, parts rig.Parts, pairs int) string {
	command := "make podstart"
	if pairs != fullLength {
		command += fmt.Sprintf(" PODSTARTFLAGS='-n %d'", pairs)
	}
	return fmt.Sprintf("`sudo %s`, %s, %d cores, %s/%s, load average %s before; cri-proxy %s built with %s, containerd %s, runc %s",
		command, time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, load(),
		commit(ctx, root), runtime.Version(), version(parts.Containerd), version(parts.Runc))
}

// load is how busy the machine was in the last minute.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(content), " ")
	return first
}

// version is that of a part, from the name of its folder in the cache.
func version(bin string) string {
	number, _, _ := strings.Cut(filepath.Base(filepath.Dir(bin)), "-")
	return number
}

// commit names what the proxy was built from.
func commit(ctx context.Context, root string) string {
	output, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty= with changes").Output()
	if err != nil {
		return "of an unknown commit"
	}
	return strings.TrimSpace(string(output))
}
