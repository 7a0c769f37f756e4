package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/imageservice"
)

func newImagesList(f *flags) *cobra.Command {
	var handler string
	c := &cobra.Command{
		Use: "list", Short: "List the images of all stores, and the handlers that have them", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path := "/v1/images"
			if handler != "" {
				path += "?" + url.Values{"handler": {handler}}.Encode()
			}
			body, err := askAdmin(c.Context(), f, path)
			if err != nil {
				return err
			}
			if f.output == "json" {
				_, err := c.OutOrStdout().Write(body)
				return err
			}
			var listing imageservice.Listing
			if err := json.Unmarshal(body, &listing); err != nil {
				return fmt.Errorf("read the proxy's answer: %w", err)
			}
			return printImages(c.OutOrStdout(), listing)
		},
	}
	addOutput(c, f)
	c.Flags().StringVar(&handler, "handler", "", "only what this `handler` has")
	return c
}

// printImages prints a line for each name in each store, and below them what
// could not be asked.
func printImages(out io.Writer, listing imageservice.Listing) error {
	var rows [][]string
	for _, store := range listing.Stores {
		for _, i := range store.Images {
			for _, name := range namesOf(i) {
				rows = append(rows, []string{name, shortID(i.ID), sizeOf(i.Size), yesNo(i.Pinned), orNone(i.Handlers), store.Backend})
			}
		}
	}
	slices.SortFunc(rows, func(a, b []string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), slices.Compare(a[1:], b[1:]))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tID\tSIZE\tPINNED\tHANDLERS\tBACKEND")
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	for _, store := range listing.Stores {
		if store.Error != "" {
			fmt.Fprintf(w, "\nthe images of backend %s are not known: %s\n", store.Backend, store.Error)
		}
	}
	return w.Flush()
}

// namesOf returns the tags of an image, or, when it has none, its digests.
func namesOf(i imageservice.Image) []string {
	switch {
	case len(i.Tags) > 0:
		return i.Tags
	case len(i.Digests) > 0:
		return i.Digests
	default:
		return []string{"<none>"}
	}
}

// shortID is as much of an image's id as people and crictl need to tell it.
func shortID(id string) string {
	const length = 13
	hex := strings.TrimPrefix(id, "sha256:")
	return hex[:min(length, len(hex))]
}

// sizeOf is a number of bytes for people, in powers of ten as crictl has it.
func sizeOf(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%dB", bytes)
	}
	value, units := float64(bytes)/1000, "kMGTPE"
	for value >= 999.95 && len(units) > 1 {
		value, units = value/1000, units[1:]
	}
	return fmt.Sprintf("%.1f%cB", value, units[0])
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}
