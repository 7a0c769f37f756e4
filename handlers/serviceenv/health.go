package serviceenv

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// health is what became of the last try to read a source.
type health struct {
	log      *logrus.Entry
	failures prometheus.Counter

	mu   sync.Mutex
	last string // The error of the last try; "" when it went well.
}

// note counts and logs a failure, and the recovery from it. A source is tried
// for ever, so what is no news is for the debug log.
func (h *health) note(source string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
		h.failures.Inc()
	}
	h.mu.Lock()
	before := h.last
	h.last = text
	h.mu.Unlock()
	log := h.log.WithField("source", source)
	switch {
	case text == "" && before != "":
		log.Info("the Services can be read again")
	case text == "":
	case text == before:
		log.WithError(err).Debug("the Services can still not be read")
	default:
		log.WithError(err).Warn("the Services cannot be read; what was read before stays in use")
	}
}

func (h *health) lastError() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
