package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion is what the program knows of its own making.
type buildVersion struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // Built from a tree with uncommitted changes.
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// String returns the version as one line.
func (v buildVersion) String() string {
	line := "cri-proxy " + v.Version
	if v.Revision != "" {
		line += " " + v.Revision
	}
	return line + " " + v.Go + " " + v.Platform
}

// readVersion reads the build info that the Go linker leaves in the binary.
func readVersion() buildVersion {
	v := buildVersion{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func newVersion(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := readVersion()
			if f.output == "json" {
				return json.NewEncoder(c.OutOrStdout()).Encode(v)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), v)
			return err
		},
	}
	addOutput(c, f)
	return c
}
