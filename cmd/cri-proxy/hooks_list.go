package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/hooks"
)

func newHooksList(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the deliveries of hooks: those that are owed, and what became of the others for a day", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := askAdmin(c.Context(), f, "/v1/hooks")
			if err != nil {
				return err
			}
			if f.output == "json" {
				_, err := c.OutOrStdout().Write(body)
				return err
			}
			var report hooks.Report
			if err := json.Unmarshal(body, &report); err != nil {
				return fmt.Errorf("read the proxy's answer: %w", err)
			}
			return printHooks(c.OutOrStdout(), report)
		},
	}
	addOutput(c, f)
	return c
}

func printHooks(out io.Writer, report hooks.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tEVENT\tHOOK\tKIND\tHANDLER\tPOD\tCONTAINER\tATTEMPTS\tACCEPTED")
	for _, e := range report.Hooks {
		fmt.Fprintln(w, strings.Join([]string{
			e.ID, string(e.State), string(e.Event), hookName(e), e.Kind, e.Handler, e.Namespace + "/" + e.Pod, e.ContainerName,
			strconv.Itoa(e.Attempts), e.Accepted.Format(time.RFC3339),
		}, "\t"))
	}
	if report.Unreadable > 0 {
		fmt.Fprintf(w, "\n%d more were written by another version of cri-proxy, and are kept as they are\n", report.Unreadable)
	}
	return w.Flush()
}

// hookName is a hook's name with its source, where that is not the node.
func hookName(e hooks.Entry) string {
	if e.Source == "node" {
		return e.Hook
	}
	return string(e.Source) + ":" + e.Hook
}

func newHooksShow(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use: "show ID", Short: "Show one delivery", Args: oneDelivery,
		RunE: func(c *cobra.Command, args []string) error {
			if f.output == "json" {
				body, err := askAdmin(c.Context(), f, hookPath(args[0]))
				if err != nil {
					return err
				}
				_, err = c.OutOrStdout().Write(body)
				return err
			}
			entry, err := f.hook(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printHook(c.OutOrStdout(), entry)
		},
	}
	addOutput(c, f)
	return c
}

// printHook prints what there is to say of a delivery, a line each.
func printHook(out io.Writer, e hooks.Entry) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"ID", e.ID},
		{"STATE", string(e.State)},
		{"REASON", e.Error},
		{"EVENT", string(e.Event)},
		{"HOOK", fmt.Sprintf("%s (%s, from %s)", e.Hook, e.Kind, e.Source)},
		{"HANDLER", e.Handler},
		{"POD", fmt.Sprintf("%s/%s (%s)", e.Namespace, e.Pod, e.PodUID)},
		{"CONTAINER", fmt.Sprintf("%s (%s)", e.ContainerName, e.Container)},
		{"SANDBOX", e.Sandbox},
		{"ATTEMPTS", attempts(e)},
		{"ACCEPTED", e.Accepted.Format(time.RFC3339)},
		{"DEADLINE", moment(e.Deadline)},
		{"FINISHED", moment(e.Finished)},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	return w.Flush()
}

func attempts(e hooks.Entry) string {
	text := fmt.Sprintf("%d of %d", e.Attempts, e.MaxAttempts)
	if e.Timeout != "" {
		text += ", " + e.Timeout + " each"
	}
	return text
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}
