package hooks

import (
	"time"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// Clock tells time that goes on while this program is not there.
type Clock struct {
	Boot   func() time.Duration // Since the machine was started.
	BootID string               // Which start that was.
}

func (c Clock) deadline(at time.Duration) journal.Deadline {
	return journal.Deadline{Boot: at, BootID: c.BootID, Wall: time.Now().Add(at - c.Boot())}
}

// at returns when a deadline is on this clock. That of another boot is over.
func (c Clock) at(d journal.Deadline) time.Duration {
	if d.BootID != c.BootID {
		return c.Boot()
	}
	return d.Boot
}
