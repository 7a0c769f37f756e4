package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/admin"
)

func newHooks(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use: "hooks", Short: "Show the deliveries of hooks, try one again, or drop one", Args: noArgs,
		RunE: printHelp,
	}
	addAdmin(c, f)
	c.AddCommand(newHooksList(f), newHooksShow(f), newHooksRetry(f), newHooksDrop(f))
	return c
}

func newHooksRetry(f *flags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "retry ID", Short: "Deliver a PostStart hook again that has failed, while its container runs",
		Args: oneDelivery,
		RunE: func(c *cobra.Command, args []string) error {
			if !dryRun {
				return changeHook(c, f, http.MethodPost, args[0], "/retry", "is tried again\n")
			}
			entry, err := f.hook(c.Context(), args[0])
			if err != nil {
				return err
			}
			if entry.Event != journal.PostStart || entry.State != journal.Failed {
				return fmt.Errorf("%s is %s: only a PostStart hook that has failed can be tried again", title(entry), entry.State)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "would try %s again, if its container runs\n", title(entry))
			return err
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func newHooksDrop(f *flags) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "drop ID", Short: "Give up a hook that is not delivered yet, or remove the record of one that is finished",
		Args: oneDelivery,
		RunE: func(c *cobra.Command, args []string) error {
			if !dryRun {
				return changeHook(c, f, http.MethodDelete, args[0], "", "is dropped\n")
			}
			entry, err := f.hook(c.Context(), args[0])
			if err != nil {
				return err
			}
			what := "give up"
			if entry.State.Finished() {
				what = "remove the record of"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "would %s %s, which is %s\n", what, title(entry), entry.State)
			return err
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func addDryRun(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "only say what would be done")
}

// oneDelivery takes exactly one argument, a delivery's id.
func oneDelivery(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return &usageError{fmt.Errorf("%q takes one delivery's id, not %d arguments", c.CommandPath(), len(args))}
	}
	return nil
}

// changeHook has the running proxy change a delivery, and says so.
func changeHook(c *cobra.Command, f *flags, method, id, action, done string) error {
	socketPath, err := adminSocket(f)
	if err != nil {
		return err
	}
	answer, err := admin.Do(c.Context(), socketPath, method, hookPath(id)+action, nil)
	if err != nil {
		return err
	}
	if err := answer.Body.Close(); err != nil {
		return fmt.Errorf("read the proxy's answer: %w", err)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "hook %s %s", id, done)
	return err
}

// hook asks the running proxy for one delivery.
func (f *flags) hook(ctx context.Context, id string) (hooks.Entry, error) {
	var entry hooks.Entry
	body, err := askAdmin(ctx, f, hookPath(id))
	if err != nil {
		return entry, err
	}
	if err := json.Unmarshal(body, &entry); err != nil {
		return entry, fmt.Errorf("read the proxy's answer: %w", err)
	}
	return entry, nil
}

func hookPath(id string) string { return "/v1/hooks/" + url.PathEscape(id) }

// title names a delivery for people.
func title(e hooks.Entry) string {
	return fmt.Sprintf("the %s hook %q of container %s of pod %s/%s", e.Event, e.Hook, e.ContainerName, e.Namespace, e.Pod)
}
