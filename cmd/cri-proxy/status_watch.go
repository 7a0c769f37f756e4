package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// watchPeriod is how often the status is shown again.
const watchPeriod = 2 * time.Second

// watch shows something again and again until it is interrupted, which is its
// good end. What goes wrong after the first time is shown too: a proxy that is
// restarted is waited for.
func watch(ctx context.Context, out io.Writer, show func() error) error {
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	between := "\n"
	if isTerminal(out) {
		between = "\x1b[H\x1b[2J" // To the top of an empty screen.
	}
	if err := show(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, err := fmt.Fprint(out, between)
		if failed := show(); failed != nil && ctx.Err() == nil {
			_, failed = fmt.Fprintln(out, failed)
			err = errors.Join(err, failed)
		}
		if err != nil {
			return err
		}
	}
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
