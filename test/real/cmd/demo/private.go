package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// privateImage comes from a registry that asks for a password, and slowly, so
// that there is time to see how far it is.
const privateImage = "ledger.test/slow/books:v1"

const privateBytes = 6 << 20

// openPrivate starts the registry, and returns the configuration of the one
// handler that may use it.
func (d *demo) openPrivate(ctx context.Context) (config string, err error) {
	if d.private, err = d.rig.Private(ctx, "ledger"); err != nil {
		return "", err
	}
	for _, containerd := range []*rig.Containerd{d.alphaContainerd, d.betaContainerd} {
		if err := containerd.Reach(d.private.Host, d.private.Address); err != nil {
			return "", err
		}
	}
	if _, err := d.private.Push(ctx, privateImage, rig.Image{Ballast: privateBytes}); err != nil {
		return "", err
	}
	file, err := d.rig.DockerConfig(isolated, rig.Login{Key: d.private.Host, User: d.private.User, Password: d.private.Password})
	return fmt.Sprintf("\n[handlers.%s.images]\nauth_files = [%q]\n", isolated, file), err
}

// refused asks for the image for the handler that has no password.
func (d *demo) refused(ctx context.Context) (string, error) {
	output, err := d.proxy.Command(ctx, "images", "pull", "--handler", "runc", privateImage).CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return "", err
	}
	if err == nil || !strings.Contains(string(output), "401 Unauthorized") && !strings.Contains(string(output), "authorization failed") {
		return "", fmt.Errorf("want that the registry refuses, and not %q", output)
	}
	return privateImage + " is refused", stored(ctx, d.alpha, privateImage, false)
}

// pullPrivate shows how far the pull is: on a terminal, which the command must
// have itself, with a bar, elsewhere with lines.
func (d *demo) pullPrivate(ctx context.Context) (string, error) {
	cmd := d.proxy.Command(ctx, "images", "pull", "--handler", isolated, privateImage)
	var lines bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(d.out, &lines), d.out
	bar := isTerminal(d.out)
	if bar {
		cmd.Stdout = d.out
	}
	fmt.Fprintln(d.out)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cri-proxy images pull: %w", err)
	}
	fmt.Fprintln(d.out)
	if !bar && !strings.Contains(lines.String(), "MB of ") {
		return "", fmt.Errorf("it did not say how far it was: %s", lines.String())
	}
	if err := stored(ctx, d.alpha, privateImage, false); err != nil {
		return "", err
	}
	return privateImage + " in " + d.beta.Endpoint, stored(ctx, d.beta, privateImage, true)
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func (d *demo) runPrivate(ctx context.Context) (shown string, err error) {
	k, err := d.rig.Kubelet(d.proxy.Endpoint())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	pod, err := k.RunPod(ctx, "books", isolated)
	if err != nil {
		return "", err
	}
	started, err := k.Start(ctx, pod, rig.KubeletContainer{Image: privateImage, Policy: rig.Never})
	if err != nil {
		return "", err
	}
	return "container " + started.ID[:13], k.Remove(ctx, pod)
}

func (d *demo) listPrivate(ctx context.Context) (string, error) {
	output, err := d.proxy.Command(ctx, "images", "list").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cri-proxy images list: %w: %s", err, output)
	}
	fmt.Fprintf(d.out, "\n%s\n", output)
	for line := range strings.Lines(string(output)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == privateImage {
			if !strings.Contains(line, " "+isolated+" ") || strings.Contains(line, " runc") {
				return "", fmt.Errorf("the handlers are wrong in %q", line)
			}
			return "handler " + isolated, nil
		}
	}
	return "", fmt.Errorf("%s is not in the list", privateImage)
}
