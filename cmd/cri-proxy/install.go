package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/internal/install"
)

func newInstall(f *flags) *cobra.Command {
	var o install.Options
	var dryRun bool
	c := &cobra.Command{
		Use: "install", Short: "Put the proxy between this node's kubelet and its runtime",
		Long: "Put the proxy between this node's kubelet and its runtime: a configuration made from that runtime, unless there is one, systemd units,\n" +
			"and the kubelet's endpoint. If the node's CRI does not answer through the proxy in time, everything is put back. Running pods live on.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Config, o.Out = f.config, c.OutOrStdout()
			if err := checkBinary(&o); err != nil {
				return err
			}
			plan, err := install.NewPlan(c.Context(), o)
			if err != nil {
				return err
			}
			if dryRun {
				_, err := fmt.Fprint(c.OutOrStdout(), plan.Diff())
				return err
			}
			ctx, stop := hungUp(c.Context())
			defer stop()
			if err := plan.Install(ctx); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "the kubelet runs on cri-proxy; cri-proxy doctor looks at the rest")
			return err
		},
	}
	addInstallFlags(c, &o, &dryRun)
	c.Flags().StringVar(&o.Runtime, "runtime", "", "`endpoint` of the node's runtime (default: the kubelet's)")
	c.Flags().StringVar(&o.Binary, "binary", "", "`file` that the service runs (default: this one)")
	c.Flags().StringArrayVar(&o.KubeletConfigs, "kubelet-config", nil, "further KubeletConfiguration `file` to change; may be repeated")
	return c
}

func newUninstall(f *flags) *cobra.Command {
	var o install.Options
	var dryRun bool
	c := &cobra.Command{
		Use: "uninstall", Short: "Take the proxy away again: every file as it was before install",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Config, o.Out = f.config, c.OutOrStdout()
			if dryRun {
				diff, err := install.UninstallDiff(c.Context(), o)
				_, printErr := fmt.Fprint(c.OutOrStdout(), diff)
				return errors.Join(err, printErr)
			}
			signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // It goes on to its end.
			if err := install.Uninstall(c.Context(), o); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "everything is as it was before cri-proxy install")
			return err
		},
	}
	addInstallFlags(c, &o, &dryRun)
	c.Flags().BoolVar(&o.Force, "force", false, "restore what was changed since, and do without the checks")
	return c
}

// hungUp keeps the process when the terminal goes away, or the reader of what it
// prints, since it would leave the node half changed. The first ends the context;
// the second is an error of the next line.
func hungUp(ctx context.Context) (context.Context, context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) { // As nohup wants it.
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// addInstallFlags adds what install and uninstall have in common.
func addInstallFlags(c *cobra.Command, o *install.Options, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "print the changes and change nothing")
	c.Flags().StringVar(&o.KubeletUnit, "kubelet-unit", "kubelet.service", "systemd `unit` of the kubelet")
	c.Flags().StringVar(&o.StateDir, "backup-dir", "/var/lib/cri-proxy", "`directory` of the backups, in its folder install")
	c.Flags().StringVar(&o.Root, "root", "", "`directory` below which the node's files and sockets are")
	c.Flags().DurationVar(&o.Patience, "timeout", 0, "how `long` the proxy, and then the kubelet through it, may take (default 30s)")
	if err := c.Flags().MarkHidden("root"); err != nil { // It is for tests: systemctl knows nothing of it.
		panic(err)
	}
}

// checkBinary: what lies in a temporary directory is gone at the next boot, and the
// service has a /tmp of its own.
func checkBinary(o *install.Options) (err error) {
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return err
		}
	}
	if !filepath.IsAbs(o.Binary) {
		return &usageError{fmt.Errorf("--binary %q is not an absolute path", o.Binary)}
	}
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp", "/home", "/root"} {
		if strings.HasPrefix(o.Binary, filepath.Clean(dir)+"/") {
			return fmt.Errorf("%s is no place for a service's program: copy it to /usr/local/bin and run that one", o.Binary)
		}
	}
	return nil
}
