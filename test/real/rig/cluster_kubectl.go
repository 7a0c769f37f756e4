package rig

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl is a kubectl command as the administrator, for a caller that wants its
// streams. Nothing of the user's own configuration is read or written.
func (c *Cluster) Kubectl(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.rig.Parts.Kubernetes, "kubectl"), arguments...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "KUBECONFIG="+c.Kubeconfig)
	return cmd
}

// RunKubectl hands a command the input and returns what it printed to standard
// output. What it printed to standard error is in the error.
func (c *Cluster) RunKubectl(ctx context.Context, input io.Reader, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := c.Kubectl(ctx, arguments...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
