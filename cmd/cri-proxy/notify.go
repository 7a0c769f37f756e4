package main

import (
	"context"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
)

// notifier tells systemd how the service is; without systemd it does nothing.
type notifier struct {
	log *logrus.Entry
}

func newNotifier(log *logrus.Entry) *notifier { return &notifier{log: log} }

func (n *notifier) ready()    { n.send(systemd.SdNotifyReady) }
func (n *notifier) stopping() { n.send(systemd.SdNotifyStopping) }

// send logs a failure and goes on: systemd's own time-outs are the answer to
// news that do not arrive.
func (n *notifier) send(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		n.log.WithField("state", state).WithError(err).Warn("systemd could not be told")
	}
}

// watchdog reports life to systemd twice in each period of WatchdogSec, as long
// as alive says so, until ctx ends. Without WatchdogSec it returns at once.
func (n *notifier) watchdog(ctx context.Context, alive func(context.Context) error) error {
	period, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read WATCHDOG_USEC: %w", err)
	}
	if period == 0 {
		return nil
	}
	ticker := time.NewTicker(period / 2)
	defer ticker.Stop()
	for {
		if err := alive(ctx); err == nil {
			n.send(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			n.log.WithError(err).Error("the proxy does not answer itself: systemd will restart it")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
