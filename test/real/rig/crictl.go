package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Crictl runs crictl against one endpoint. It is safe for concurrent use.
type Crictl struct {
	Endpoint string

	dir    string // of its configuration and the files that it is handed
	binary string
	files  *atomic.Uint64
}

// Crictl prepares crictl for an endpoint, "unix:///…". Its configuration is a
// file of its own, for crictl without one warns on every call and gives up
// after two seconds.
func (r *Rig) Crictl(endpoint string) (Crictl, error) {
	dir, err := os.MkdirTemp(r.Dir, "crictl")
	if err != nil {
		return Crictl{}, err
	}
	config := fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n", endpoint, endpoint)
	if err := os.WriteFile(filepath.Join(dir, "crictl.yaml"), []byte(config), 0o644); err != nil {
		return Crictl{}, err
	}
	binary := filepath.Join(r.Parts.CRITools, "crictl")
	return Crictl{Endpoint: endpoint, dir: dir, binary: binary, files: new(atomic.Uint64)}, nil
}

// Command is a crictl command for a caller that wants its streams.
func (c Crictl) Command(ctx context.Context, arguments ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.binary, append([]string{"--config", filepath.Join(c.dir, "crictl.yaml")}, arguments...)...)
}

// Run returns what the command printed to standard output, without the last
// line's end. What it printed to standard error is in the error.
func (c Crictl) Run(ctx context.Context, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := c.Command(ctx, arguments...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("crictl %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// JSON decodes what the command, the first argument, prints with "-o json" into
// value.
func (c Crictl) JSON(ctx context.Context, value any, arguments ...string) error {
	output, err := c.Run(ctx, slices.Insert(slices.Clone(arguments), 1, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(output), value); err != nil {
		return fmt.Errorf("crictl %s: %w", strings.Join(arguments, " "), err)
	}
	return nil
}

// RunPod runs a pod sandbox under a handler ("" for the default) and returns its id.
func (c Crictl) RunPod(ctx context.Context, handler string, pod *runtimeapi.PodSandboxConfig) (string, error) {
	file, err := c.file(pod)
	if err != nil {
		return "", err
	}
	return c.Run(ctx, "runp", "--runtime", handler, file)
}

// Create creates a container in a pod and returns its id.
func (c Crictl) Create(
	ctx context.Context, podID string, pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig,
) (string, error) {
	podFile, podErr := c.file(pod)
	containerFile, containerErr := c.file(container)
	if err := errors.Join(podErr, containerErr); err != nil {
		return "", err
	}
	return c.Run(ctx, "create", podID, containerFile, podFile)
}

// Start creates a container in a pod, starts it, and returns its id.
func (c Crictl) Start(
	ctx context.Context, podID string, pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig,
) (string, error) {
	id, err := c.Create(ctx, podID, pod, container)
	if err != nil {
		return "", err
	}
	_, err = c.Run(ctx, "start", id)
	return id, err
}

func (c Crictl) file(config any) (string, error) {
	file := filepath.Join(c.dir, fmt.Sprintf("%d.json", c.files.Add(1)))
	return file, writeJSON(file, config)
}

// Pull pulls an image for a pod's handler, as the kubelet does.
func (c Crictl) Pull(ctx context.Context, image string, pod *runtimeapi.PodSandboxConfig) (string, error) {
	file, err := c.file(pod)
	if err != nil {
		return "", err
	}
	return c.Run(ctx, "pull", "--pod-config", file, image)
}
