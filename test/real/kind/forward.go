package kind

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Forward asks a pod's HTTP port for its front page by way of "kubectl
// port-forward".
func (c *Cluster) Forward(ctx context.Context, pod string, port int) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	forward := c.Command(ctx, filepath.Join(c.parts.Kubernetes, "kubectl"), "port-forward", "pod/"+pod, fmt.Sprintf(":%d", port))
	stdout, err := forward.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := forward.Start(); err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, forward.Cancel())
		_ = forward.Wait() //nolint:errcheck // It was killed.
	}()
	line := make([]byte, 256)
	count, err := stdout.Read(line)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`127\.0\.0\.1:\d+`).Find(line[:count])
	if found == nil {
		return "", fmt.Errorf("kubectl port-forward says %q", line[:count])
	}
	err = rig.Poll(ctx, func() error {
		answer, err = output(c.Command(ctx, "curl", "--silent", "--show-error", "http://"+string(found)), nil)
		return err
	})
	return answer, err
}
