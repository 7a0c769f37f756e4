package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

const defaultConfigPath = "/etc/cri-proxy/config.toml"

// flags are those that all commands share.
type flags struct {
	config string
	admin  string
	output string
}

func newRoot() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:           "cri-proxy",
		Short:         "One CRI socket for a node with several container runtimes",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&f.config, "config", defaultConfigPath, "configuration `file`")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newRun(f), newConfig(f), newStatus(f), newVersion(f))
	return root
}

// noArgs refuses arguments, an unknown subcommand among them.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("%q takes no argument %q", c.CommandPath(), args[0])}
	}
	return nil
}

// addOutput adds -o to a command that lists.
func addOutput(c *cobra.Command, f *flags) {
	c.Flags().StringVarP(&f.output, "output", "o", "table", "`format`: table or json")
	c.PreRunE = func(*cobra.Command, []string) error {
		if f.output != "table" && f.output != "json" {
			return &usageError{fmt.Errorf("--output %q is neither table nor json", f.output)}
		}
		return nil
	}
}
