// Command cri-proxy is the CRI socket of a Kubernetes node with several
// container runtimes.
//
// It guarantees the exit codes 0 (done), 1 (failed) and 2 (wrong usage), that
// errors go to standard error and results to standard output, and that SIGTERM
// and SIGINT end `run` in order. Everything else is the packages' it wires.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // A second signal ends the process at once, as usual.
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot() //nolint:contextcheck // Each command has ctx from cobra.
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	text, code := fmt.Sprintf("cri-proxy: %v\n", err), 1
	if _, ok := errors.AsType[*usageError](err); ok {
		text, code = text+"Run 'cri-proxy help' for the commands and their flags.\n", 2
	}
	fmt.Fprint(stderr, text) //nolint:errcheck // There is no other place to say it.
	return code
}

// usageError is a command line that makes no sense, as opposed to one that
// failed.
type usageError struct{ error }

// Unwrap gives errors.Is and errors.As the cause.
func (e *usageError) Unwrap() error { return e.error }
