package kind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Cluster is one that "make kind-up" has made on a daemon.
type Cluster struct {
	*Docker

	Name string

	root  string
	parts rig.Parts
	kind  string   // path of the program that "make" has built
	nodes []string // that there are
}

// Control is the first node, and the container that it is.
func (c *Cluster) Control() string { return c.Name + "-control-plane" }

// Worker is the second node, and the container that it is.
func (c *Cluster) Worker() string { return c.Name + "-worker" }

// Parts are what it was made of.
func (c *Cluster) Parts() rig.Parts { return c.parts }

// config is configs/kind/cluster.yaml with what this machine and the base image
// need, and a graceful shutdown of the nodes. There is no image for the addons.
func (c *Cluster) config() (path string, err error) {
	shipped, err := os.ReadFile(filepath.Join(c.root, "configs", "kind", "cluster.yaml"))
	if err != nil {
		return "", err
	}
	kubelet, containerd, err := restrictedPatches()
	if err != nil {
		return "", err
	}
	before, after, found := strings.Cut(string(shipped), "containerdConfigPatches:\n")
	if !found {
		return "", errors.New("configs/kind/cluster.yaml has no containerdConfigPatches to put further patches before")
	}
	content := before + patch("kind: InitConfiguration\nskipPhases: [preflight, addon/coredns, addon/kube-proxy]\n") +
		patch("kind: KubeletConfiguration\nshutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n"+kubelet) +
		"containerdConfigPatches:\n"
	if containerd != "" {
		content += patch(containerd)
	}
	path = c.Config()
	return path, os.WriteFile(path, []byte(content+after), 0o644)
}

// Config is the file that it was made by.
func (c *Cluster) Config() string { return c.file("cluster.yaml") }

// patch is an item of a YAML list of texts.
func patch(text string) string {
	return "  - |\n    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n"
}

// Up is "make kind-up" on the base image. What it prints goes to the writer too.
func (d *Docker) Up(ctx context.Context, root string, parts rig.Parts, name string, progress io.Writer) (*Cluster, error) {
	c := &Cluster{Docker: d, Name: name, root: root, parts: parts}
	c.nodes = []string{c.Control(), c.Worker()}
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	if err := c.make(ctx, progress, "kind-up", "BASE="+Base, "CONFIG="+config); err != nil {
		return nil, err
	}
	c.kind, err = c.kindBinary(ctx)
	return c, err
}

// kindBinary is the kind that "make" uses.
func (c *Cluster) kindBinary(ctx context.Context) (string, error) {
	cache, err := rig.Cache()
	if err != nil {
		return "", err
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "sigs.k8s.io/kind")
	list.Dir = filepath.Join(c.root, "test", "tools", "kind")
	version, err := output(list, nil)
	return filepath.Join(cache, "kind", strings.TrimSpace(version), "kind"), err
}

// Down is "make kind-down".
func (c *Cluster) Down(ctx context.Context, progress io.Writer) error {
	return c.make(ctx, progress, "kind-down")
}

func (c *Cluster) make(ctx context.Context, progress io.Writer, arguments ...string) error {
	cmd := c.Command(ctx, "make", append([]string{"--no-print-directory", "--directory", c.root, "CLUSTER=" + c.Name}, arguments...)...)
	cmd.Stdout, cmd.Stderr = progress, progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make %s: %w", strings.Join(arguments, " "), err)
	}
	return nil
}

// Kubectl is a kubectl command of the administrator's.
func (c *Cluster) Kubectl(ctx context.Context, input io.Reader, arguments ...string) (string, error) {
	return output(c.Command(ctx, filepath.Join(c.parts.Kubernetes, "kubectl"), arguments...), input)
}

// User is a script of a user's in the repository, with the kind, kubectl and
// docker of this cluster. It ends at the first command that fails. What it prints
// is returned, both outputs in one.
func (c *Cluster) User(ctx context.Context, script string) (string, error) {
	cmd := c.Command(ctx, "bash", "-e", "-u", "-c", script)
	cmd.Dir = c.root
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(c.kind)+":"+c.parts.Kubernetes+":"+os.Getenv("PATH"))
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// On is a command in a node.
func (c *Cluster) On(ctx context.Context, node string, arguments ...string) (string, error) {
	return c.Run(ctx, nil, append([]string{"exec", node}, arguments...)...)
}

// Logs writes what the nodes' units have logged last, for the reader of a failure.
func (c *Cluster) Logs(ctx context.Context, w io.Writer) {
	for _, node := range c.nodes {
		for _, unit := range []string{"cri-proxy", "kubelet", "containerd", "containerd-second"} {
			text, err := c.On(ctx, node, "journalctl", "--no-pager", "--lines", "40", "--unit", unit)
			fmt.Fprintf(w, "--- %s on %s: %v\n%s", unit, node, err, text)
		}
	}
}
