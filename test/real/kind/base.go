package kind

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Base is the name of the image that stands in for kindest/node.
const Base = "cri-proxy.test/base:v1"

const (
	suite  = "bookworm"
	mirror = "http://deb.debian.org/debian"
	// packages are kind's, with dbus for the kubelet's graceful shutdown, and crun.
	packages = "ca-certificates,conntrack,crun,curl,dbus,e2fsprogs,ethtool,iproute2,iptables,jq,kmod,libseccomp2,mount,procps,socat,systemd,systemd-sysv,util-linux"
)

// baseFiles are the parts of the image that are ours.
//
//go:embed base
var baseFiles embed.FS

// builder makes the base image in a folder that is the context of docker build.
type builder struct {
	*Docker

	parts   rig.Parts
	root    string // of the repository
	context string
}

// BuildBase makes the base image out of Debian, of kind's own files and of the
// parts, which Parts.BuildCluster has completed.
func (d *Docker) BuildBase(ctx context.Context, parts rig.Parts, root string, progress io.Writer) error {
	b := &builder{Docker: d, parts: parts, root: root, context: d.file("base")}
	version, err := b.version(ctx)
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error { return b.rootfs(ctx, progress) },
		func() error { return b.kindFiles(ctx) },
		func() error { return b.ownFiles(version) },
		b.programs,
		func() error { return b.images(ctx, version) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("make the base image: %w", err)
		}
	}
	if _, err := b.Run(ctx, nil, "build", "--tag", Base, b.context); err != nil {
		return err
	}
	return os.RemoveAll(b.context)
}

// version is that of Kubernetes, as kind writes it.
func (b *builder) version(ctx context.Context) (string, error) {
	text, err := output(exec.CommandContext(ctx, filepath.Join(b.parts.Kubernetes, "kubelet"), "--version"), nil)
	return strings.TrimPrefix(strings.TrimSpace(text), "Kubernetes "), err
}

// rootfs is Debian as a tar file, made once for all checkouts.
func (b *builder) rootfs(ctx context.Context, progress io.Writer) error {
	cache, err := rig.Cache()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(packages))
	made := filepath.Join(cache, "kind-base", suite+"-"+hex.EncodeToString(sum[:6])+".tar")
	if _, err := os.Stat(made); err != nil {
		if err := b.debootstrap(ctx, made, progress); err != nil {
			return err
		}
	}
	return place(made, filepath.Join(b.context, "rootfs.tar"), 0o644)
}

func (b *builder) debootstrap(ctx context.Context, made string, progress io.Writer) error {
	fmt.Fprintln(progress, "installing Debian", suite, "for the nodes …")
	tree, archive := b.file("debian"), made+".new"
	if err := os.MkdirAll(filepath.Dir(made), 0o755); err != nil {
		return err
	}
	if _, err := output(exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include="+packages, suite, tree, mirror), nil); err != nil {
		return err
	}
	_, err := output(exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--xattrs", "--file", archive,
		"--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*_*", "--exclude=./usr/share/doc/*", "--directory", tree, "."), nil)
	return errors.Join(err, os.Rename(archive, made), os.RemoveAll(tree))
}

// kindFiles are those of kind's own base image, from its module. A module keeps
// no modes.
func (b *builder) kindFiles(ctx context.Context) error {
	find := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind")
	find.Dir = filepath.Join(b.root, "test", "tools", "kind")
	find.Env = append(os.Environ(), "GOWORK=off")
	folder, err := output(find, nil)
	if err != nil {
		return err
	}
	from := filepath.Join(strings.TrimSpace(folder), "images", "base", "files")
	if err := os.CopyFS(filepath.Join(b.context, "files"), os.DirFS(from)); err != nil {
		return err
	}
	_, err = output(exec.CommandContext(ctx, "chmod", "-R", "u+rwX,go+rX", b.context), nil)
	var programs []string
	for _, pattern := range []string{"usr/local/bin/*", "kind/bin/*"} {
		found, globErr := filepath.Glob(filepath.Join(b.context, "files", pattern))
		programs, err = append(programs, found...), errors.Join(err, globErr)
	}
	for _, program := range programs {
		err = errors.Join(err, os.Chmod(program, 0o755))
	}
	return errors.Join(err, b.adjust("etc/containerd/config.toml",
		`registry.k8s.io/pause:3.10"`, pauseImage+`"`, "  tolerate_missing_hugepages_controller = true\n", ""))
}

// adjust replaces parts of a file that must be there.
func (b *builder) adjust(name string, pairs ...string) error {
	path := filepath.Join(b.context, "files", name)
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(content)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			return fmt.Errorf("%s of kind has no %q any more", name, pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// ownFiles are the network of the pods and what kind looks for in a node image.
func (b *builder) ownFiles(version string) error {
	for from, to := range map[string]string{
		"Dockerfile":              "Dockerfile",
		"network-of-pods.sh":      "files/usr/local/bin/network-of-pods.sh",
		"network-of-pods.service": "files/etc/systemd/system/network-of-pods.service",
		"default-cni.yaml":        "files/kind/manifests/default-cni.yaml",
	} {
		content, err := baseFiles.ReadFile("base/" + from)
		if err != nil {
			return err
		}
		target := filepath.Join(b.context, to)
		mode := os.FileMode(0o644)
		if strings.HasSuffix(to, ".sh") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, mode)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.context, "files", "kind", "version"), []byte(version), 0o644)
}

// programs are the node's own.
func (b *builder) programs() error {
	for folder, names := range map[string][]string{
		b.parts.Kubernetes: {"/usr/bin/kubeadm", "/usr/bin/kubelet", "/usr/bin/kubectl"},
		b.parts.Containerd: {"/usr/local/bin/containerd", "/usr/local/bin/containerd-shim-runc-v2", "/usr/local/bin/ctr"},
		b.parts.CRITools:   {"/usr/local/bin/crictl"},
		b.parts.Runc:       {"/usr/local/sbin/runc"},
		b.parts.CNI:        {"/opt/cni/bin/bridge", "/opt/cni/bin/host-local", "/opt/cni/bin/loopback", "/opt/cni/bin/portmap"},
	} {
		for _, name := range names {
			if err := place(filepath.Join(folder, filepath.Base(name)), filepath.Join(b.context, "files", name), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// place copies a file without its bytes where the file system can.
func place(from, to string, mode os.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
