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
	log    *logrus.Entry
	period time.Duration // The service's WatchdogSec; 0 is none.
}

// newNotifier reads what systemd put into the environment.
func newNotifier(log *logrus.Entry) (*notifier, error) {
	period, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("WATCHDOG_USEC or WATCHDOG_PID in the environment, which systemd sets: %w", err)
	}
	return &notifier{log: log, period: period}, nil
}

func (n *notifier) ready() { n.send(systemd.SdNotifyReady) }

// reloading is followed by ready. The time is what tells systemd that this is
// the answer to its own request.
func (n *notifier) reloading() {
	n.send(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

func (n *notifier) stopping() { n.send(systemd.SdNotifyStopping) }

// send logs a failure and goes on: systemd's own time-outs are the answer to
// news that do not arrive.
func (n *notifier) send(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		n.log.WithField("state", state).WithError(err).Warn("systemd could not be told")
	}
}

// watchdog reports life to systemd twice in each period, as long as alive says
// so, until ctx ends. Without WatchdogSec it returns at once. A service that is
// stopping need not report any more: its watchdog is off by then.
func (n *notifier) watchdog(ctx context.Context, alive func(context.Context) error) {
	if n.period == 0 {
		return
	}
	ticker := time.NewTicker(n.period / 2)
	defer ticker.Stop()
	for {
		if err := alive(ctx); err == nil {
			n.send(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			n.log.WithError(err).Error("the proxy does not answer itself: if this goes on, systemd restarts it")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
