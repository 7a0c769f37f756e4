package main

import (
	"fmt"
	"strings"

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
		RunE:          printHelp,
	}
	root.PersistentFlags().StringVar(&f.config, "config", defaultConfigPath, "configuration `file`")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newRun(f), newConfig(f), newStatus(f), newImages(f), newHooks(f), newDoctor(f), newInstall(f), newUninstall(f), newMan(), newVersion(f))
	root.SetHelpCommand(newHelp(root))
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			strict(c)
		}
	}
	return root
}

// newHelp is cobra's help command, but for a failure where that has none: a
// topic that does not exist.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Print what a command does, and its flags",
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return &usageError{fmt.Errorf("there is no command %q", strings.Join(args, " "))}
			}
			c.InitDefaultHelpFlag() // Or it would be missing among the flags.
			return c.Help()
		},
	}
}

// strict makes a command that cobra wrote, and those below it, refuse what they
// do not know as ours do.
func strict(c *cobra.Command) {
	c.Args = noArgs
	if !c.Runnable() {
		c.RunE = printHelp
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// printHelp is what a command does that only holds others.
func printHelp(c *cobra.Command, _ []string) error { return c.Help() }

// noArgs refuses arguments, an unknown subcommand among them.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		return &usageError{fmt.Errorf("%q has no command %q", c.CommandPath(), args[0])}
	}
	return &usageError{fmt.Errorf("%q takes no argument %q", c.CommandPath(), args[0])}
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
