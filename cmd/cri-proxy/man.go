package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan writes a manual page for each command. It is for packages, and so it is
// not in the help.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use: "man directory", Short: "Write the manual pages", Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{fmt.Errorf("man takes one directory, and got %q", strings.Join(args, " "))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true // It has the date, and equal sources are to give equal pages.
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "cri-proxy", Manual: "cri-proxy"}, args[0])
		},
	}
}
