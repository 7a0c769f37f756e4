package kind

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Plain makes a cluster of one node with kind alone, on the base image as it is.
// Its kubelet is on the node's containerd, and there is no cri-proxy in it.
func (d *Docker) Plain(ctx context.Context, root string, parts rig.Parts, name string, progress io.Writer) (*Cluster, error) {
	c := &Cluster{Docker: d, Name: name, root: root, parts: parts}
	c.nodes = []string{c.Control()}
	kubelet, containerd, err := restrictedPatches()
	if err != nil {
		return nil, err
	}
	config := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nkubeadmConfigPatches:\n" +
		patch("kind: InitConfiguration\nskipPhases: [preflight, addon/coredns, addon/kube-proxy]\n")
	if kubelet != "" {
		config += patch("kind: KubeletConfiguration\n" + kubelet)
	}
	if containerd != "" {
		config += "containerdConfigPatches:\n" + patch(containerd)
	}
	file := c.file("plain.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	if c.kind, err = c.kindBinary(ctx); err != nil {
		return nil, err
	}
	create := c.Command(ctx, c.kind, "create", "cluster", "--name", name, "--image", Base, "--config", file, "--wait", "3m")
	create.Stdout, create.Stderr = progress, progress
	return c, create.Run()
}

// Delete is "kind delete cluster".
func (c *Cluster) Delete(ctx context.Context) error {
	_, err := output(c.Command(ctx, c.kind, "delete", "cluster", "--name", c.Name), nil)
	return err
}

// Shell is a script in a node, as its root types it in a folder with a kubectl of
// the administrator's. It ends at the first command that fails. What it prints is
// returned, both outputs in one.
func (c *Cluster) Shell(ctx context.Context, node, folder, script string) (string, error) {
	cmd := c.Command(ctx, "docker", "exec", "--workdir", folder, "--env", "HOME=/root", "--env", "KUBECONFIG=/etc/kubernetes/admin.conf",
		node, "bash", "-e", "-u", "-c", script)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// release makes a repository with one commit out of the files of a checkout.
const release = `
mkdir "$2"
git -C "$1" ls-files -z --cached --others --exclude-standard |
	tar --create --directory "$1" --null --no-recursion --ignore-failed-read --warning=no-failed-read --files-from - |
	tar --extract --directory "$2"
cd "$2"
git init --quiet
git add --all
`

// dist makes the packages of one version.
const dist = `
cd "$1"
git -c user.name=release -c user.email=release@localhost -c commit.gpgsign=false commit --quiet --allow-empty --message "$2"
git tag "$2"
make --no-print-directory dist
mkdir -p "$3"
cp bin/dist/*.deb bin/dist/*.tar.gz "$3"
`

// Packages makes what "make dist" makes of a checkout, once for each version, in
// one folder for each. Work that is not committed yet is in them.
func (d *Docker) Packages(ctx context.Context, root string, progress io.Writer, versions ...string) (folders []string, err error) {
	source := d.file("release")
	run := func(script string, arguments ...string) error {
		cmd := exec.CommandContext(ctx, "bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, arguments...)...)
		cmd.Stdout, cmd.Stderr = progress, progress
		return cmd.Run()
	}
	if err := run(release, root, source); err != nil {
		return nil, err
	}
	for _, version := range versions {
		folder := filepath.Join(d.file("packages"), version)
		if err := run(dist, source, version, folder); err != nil {
			return nil, err
		}
		folders = append(folders, folder)
	}
	return folders, os.RemoveAll(source)
}
