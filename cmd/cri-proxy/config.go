package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/configs"
)

func newConfig(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Print or check the configuration",
		Args:  noArgs,
		RunE:  printHelp,
	}
	c.AddCommand(
		&cobra.Command{
			Use: "default", Short: "Print the default configuration, every key explained", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				_, err := c.OutOrStdout().Write(configs.DefaultTOML())
				return err
			},
		},
		&cobra.Command{
			Use: "validate", Short: "Check the configuration file and name every mistake in it", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				if _, err := readConfig(f.config); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "%s is valid\n", f.config)
				return err
			},
		},
		&cobra.Command{
			Use: "dump", Short: "Print the configuration as it is in effect, defaults filled in", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				cfg, err := readConfig(f.config)
				if err != nil {
					return err
				}
				dump, err := configs.Dump(cfg)
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(dump)
				return err
			},
		},
	)
	return c
}

// readConfig reads a configuration that is valid.
func readConfig(path string) (*configs.Config, error) {
	cfg, err := configs.Load(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: write it, beginning with what 'cri-proxy config default' prints, or name another file by --config", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be used:\n%w", err)
	}
	return cfg, nil
}
