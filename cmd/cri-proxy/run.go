package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/configs"
)

func newRun(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Serve CRI until SIGTERM",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// From the start, or a signal that comes early would end the process.
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			cfg, err := readConfig(f.config)
			if err != nil {
				return err
			}
			log, err := newLog(cfg.Log, c.ErrOrStderr())
			if err != nil {
				return err
			}
			onOneProcessor()
			return serve(c.Context(), f.config, hangups, cfg, log)
		},
	}
}

// onOneProcessor lets the process run on one processor at a time, unless the
// environment says otherwise. A call is five hand-overs from goroutine to
// goroutine, each of a few microseconds: with a second processor most of its
// time goes into waking that one up. docs/performance.md has the numbers.
func onOneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

func serve(ctx context.Context, path string, hangups <-chan os.Signal, cfg *configs.Config, log *logrus.Entry) error {
	d, err := newDaemon(ctx, cfg, log)
	if err != nil {
		return err
	}
	d.reloads.path, d.reloads.asked = path, hangups
	return errors.Join(d.run(ctx), d.close())
}

// newLog makes the one logger; each room gets it with its name.
func newLog(cfg configs.Log, w io.Writer) (*logrus.Entry, error) {
	level, err := logrus.ParseLevel(cfg.Level)
	if err != nil {
		return nil, err
	}
	logger := logrus.New()
	logger.SetOutput(w)
	logger.SetLevel(level)
	logger.SetFormatter(formatter(cfg))
	return logrus.NewEntry(logger), nil
}

func formatter(cfg configs.Log) logrus.Formatter {
	if cfg.Format == configs.LogJSON {
		return &logrus.JSONFormatter{}
	}
	return &logrus.TextFormatter{FullTimestamp: true}
}
