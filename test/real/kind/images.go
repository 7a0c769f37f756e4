package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// pauseImage is the sandboxes' and the one of the example pods.
const pauseImage = "registry.k8s.io/pause:3.10.2"

// images are what the node's containerd has from the start: the control plane,
// and the image of the sandboxes. kubeadm says how they are called.
func (b *builder) images(ctx context.Context, version string) error {
	list, err := output(exec.CommandContext(ctx, filepath.Join(b.parts.Kubernetes, "kubeadm"), "config", "images", "list", "--kubernetes-version", version), nil)
	if err != nil {
		return err
	}
	if !strings.Contains(list, pauseImage+"\n") {
		return fmt.Errorf("kubeadm wants another image for sandboxes than %s: %s", pauseImage, list)
	}
	names := []string{pauseImage}
	for name := range strings.FieldsSeq(list) {
		program := regexp.MustCompile(`(kube-apiserver|kube-controller-manager|kube-scheduler|etcd):`).FindStringSubmatch(name)
		if program == nil {
			continue
		}
		if err := b.controlImage(ctx, name, program[1]); err != nil {
			return err
		}
		names = append(names, name)
	}
	if err := b.ProgramImage(ctx, b.root, pauseImage, "pause", "/bin/pause"); err != nil {
		return err
	}
	_, err = b.Run(ctx, nil, append([]string{"save", "--output", filepath.Join(b.context, "images.tar")}, names...)...)
	return err
}

// controlImage has one program of the control plane.
func (b *builder) controlImage(ctx context.Context, name, program string) error {
	source := filepath.Join(b.parts.Kubernetes, program)
	if program == "etcd" {
		source = filepath.Join(b.parts.Etcd, "server")
	}
	tree := b.file("image-" + program)
	if err := b.programTree(ctx, tree, source, program); err != nil {
		return err
	}
	return errors.Join(b.importImage(ctx, tree, name, `ENTRYPOINT []`), os.RemoveAll(tree))
}

// programTree is a folder with a program and the libraries that it is linked
// with.
func (*Docker) programTree(ctx context.Context, tree, source, program string) error {
	if err := place(source, filepath.Join(tree, "usr", "local", "bin", program), 0o755); err != nil {
		return err
	}
	linked, err := output(exec.CommandContext(ctx, "ldd", source), nil)
	if err != nil {
		return err
	}
	for _, library := range regexp.MustCompile(`/\S+\.so\.\d+`).FindAllString(linked, -1) {
		actual, err := filepath.EvalSymlinks(library)
		if err != nil {
			return err
		}
		if err := place(actual, filepath.Join(tree, library), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// ProgramImage makes an image of one of the programs in test/real/images, with
// hard links under each of its other names. Images of different names have
// different ids: the kubelet remembers by id which secrets an image came with.
func (d *Docker) ProgramImage(ctx context.Context, root, name, program string, command ...string) error {
	tree, err := os.MkdirTemp(d.Dir, "image")
	if err == nil {
		err = os.Chmod(tree, 0o755) // It becomes the root of containers.
	}
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", tree+"/bin/", "./images/"+program)
	build.Dir = filepath.Join(root, "test", "real")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if _, err := output(build, nil); err != nil {
		return err
	}
	if program == "app" {
		for _, link := range []string{"append", "cat", "echo", "env", "exit", "hostname", "serve", "sleep", "try"} {
			if err := os.Link(filepath.Join(tree, "bin", program), filepath.Join(tree, "bin", link)); err != nil {
				return err
			}
		}
	}
	change := `CMD ["` + strings.Join(command, `","`) + `"]`
	return errors.Join(d.importImage(ctx, tree, name, change), os.RemoveAll(tree))
}

// importImage makes an image of one layer.
func (d *Docker) importImage(ctx context.Context, tree, name, change string) (err error) {
	tar := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--owner=0", "--group=0", "--directory", tree, ".")
	stream, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tar.Start(); err != nil {
		return err
	}
	_, err = d.Run(ctx, stream, "import", "--change", "ENV PATH=/usr/local/bin:/bin IMAGE="+name, "--change", change, "-", name)
	return errors.Join(err, tar.Wait())
}
