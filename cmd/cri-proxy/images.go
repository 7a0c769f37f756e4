package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
)

func newImages(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use: "images", Short: "Show, pull and copy the images of the handlers", Args: noArgs,
		RunE: printHelp,
	}
	addAdmin(c, f)
	c.AddCommand(newImagesList(f), newImagesPull(f), newImagesCopy(f))
	return c
}

func newImagesPull(f *flags) *cobra.Command {
	var request imageservice.PullRequest
	c := &cobra.Command{
		Use: "pull [--handler H] IMAGE", Short: "Pull an image into a handler's store, by the handler's rules and with its credentials",
		Args: oneImage,
		RunE: func(c *cobra.Command, args []string) error {
			request.Image = args[0]
			return work(c, f, "/v1/images/pull", request)
		},
	}
	c.Flags().StringVar(&request.Handler, "handler", "", "`handler` to pull for (default: the configuration's default_handler)")
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "only say what would be done")
	return c
}

func newImagesCopy(f *flags) *cobra.Command {
	var request imageservice.CopyRequest
	c := &cobra.Command{
		Use: "copy --from H --to H2 IMAGE", Short: "Copy an image from one handler's store into another's, without a registry",
		Args: oneImage,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case request.From == "" || request.To == "":
				return &usageError{errors.New("--from and --to must both name a handler")}
			case request.From == request.To:
				return &usageError{fmt.Errorf("--from and --to are both %q", request.From)}
			}
			request.Image = args[0]
			return work(c, f, "/v1/images/copy", request)
		},
	}
	c.Flags().StringVar(&request.From, "from", "", "`handler` whose store has the image")
	c.Flags().StringVar(&request.To, "to", "", "`handler` whose pods are to have it")
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "only say what would be done")
	return c
}

// oneImage takes exactly one argument, an image.
func oneImage(c *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return &usageError{fmt.Errorf("%q takes one image, not %d arguments", c.CommandPath(), len(args))}
	}
	return nil
}

// work has the running proxy do something that takes its time, and shows how far
// it is. Its end is the command's: when ctx ends, the proxy ends the work.
func work(c *cobra.Command, f *flags, path string, request any) error {
	ctx := c.Context()
	socketPath, err := adminSocket(f)
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	response, err := admin.Do(ctx, socketPath, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return cancelled(ctx, err)
	}
	d := newDisplay(c.OutOrStdout())
	err = errors.Join(follow(response.Body, d.show), d.close(), response.Body.Close())
	return cancelled(ctx, err)
}

// cancelled is the error of a command that was interrupted, whatever failed
// because of it; any other error stays.
func cancelled(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted: the proxy was told to stop, and what was not finished is not in the store")
	}
	return err
}

// follow reads the steps of an answer until the last, which decides.
func follow(body io.Reader, show func(imageservice.Step) error) error {
	decoder := json.NewDecoder(body)
	for {
		var s imageservice.Step
		switch err := decoder.Decode(&s); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the proxy went away before it was done: see its log, and try again")
		case err != nil:
			return fmt.Errorf("read the proxy's answer: %w", err)
		case s.Error != nil:
			return fmt.Errorf("%s (%s)", s.Error.Message, s.Error.Code)
		}
		if err := show(s); err != nil {
			return err
		}
		if s.Result != nil {
			return nil
		}
	}
}
