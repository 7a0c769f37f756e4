package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cri-proxy/cri-proxy/configs"
)

// Options say what is installed where.
type Options struct {
	// Config is the proxy's configuration file, which is made if it is not there.
	Config string
	// Binary is the program that the service runs.
	Binary string
	// Runtime is the endpoint of the node's runtime; "" is the kubelet's.
	Runtime string
	// KubeletConfigs are further KubeletConfiguration files to change.
	KubeletConfigs []string
	// KubeletUnit is the systemd unit of the kubelet.
	KubeletUnit string
	// StateDir holds the backups.
	StateDir string
	// Root is the directory below which all files and sockets are; "" is /.
	Root string
	// Systemctl is the command; "" is systemctl in the PATH.
	Systemctl string
	// Patience is how long the proxy, and then the kubelet through it, may take; 0
	// is 30 seconds.
	Patience time.Duration
	// Force lets Uninstall restore what was changed since.
	Force bool
	// Out gets a line for each step.
	Out io.Writer
	// Failpoint, if it is set, is asked after each step; its error is that step's.
	Failpoint func(step string) error
}

func (o Options) withDefaults() Options {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&o.KubeletUnit, "kubelet.service")
	fill(&o.StateDir, configs.Default().State.Dir)
	fill(&o.Systemctl, "systemctl")
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

// path is where a file of the node is.
func (o Options) path(file string) string {
	if o.Root == "" {
		return file
	}
	return filepath.Join(o.Root, file)
}

// say reports a step.
func (o Options) say(format string, args ...any) error {
	_, err := fmt.Fprintf(o.Out, format+"\n", args...)
	return err
}

// systemctl runs one command of it.
func (o Options) systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, o.Systemctl, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// systemctlSays runs one whose answer is its exit code.
func (o Options) systemctlSays(ctx context.Context, args ...string) (bool, error) {
	err := exec.CommandContext(ctx, o.Systemctl, args...).Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}
