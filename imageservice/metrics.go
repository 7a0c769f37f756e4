package imageservice

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The results of a pull, as the metric names them.
const (
	pullPulled    = "pulled"
	pullShared    = "shared"
	pullPresent   = "present"
	pullRefused   = "refused"
	pullFailed    = "failed"
	pullCancelled = "cancelled"
)

// metrics count pulls. Their handler is one that is configured, or "" for a pod
// whose handler no longer is.
type metrics struct {
	pulls *prometheus.CounterVec
	bytes *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	return &metrics{
		pulls: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "cri_proxy_pulls_total",
			Help: "Pulls asked for, by the handler they were for and what came of them: pulled, shared (joined an equal one that succeeded), " +
				"present (not pulled, by pull_policy never), refused (by a rule of the handler), failed, cancelled (the caller left).",
		}, []string{"handler", "result"}),
		bytes: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "cri_proxy_pulled_bytes_total",
			Help: "Size, as the runtime gives it, of images that were not in the store by that name before a pull and were after it. " +
				"Layers that the store had already count too, so it is not what went over the network. " +
				"Always 0 where one store serves handlers without settings for images: pulls just pass there.",
		}, []string{"handler"}),
	}
}

// expect lets the counts of a handler's pulls begin at 0: from nothing to 1 is no
// increase that Prometheus sees, and the first pull that fails would be missed.
func (m *metrics) expect(handler string) {
	for _, result := range []string{pullPulled, pullShared, pullPresent, pullRefused, pullFailed, pullCancelled} {
		m.pulls.WithLabelValues(handler, result)
	}
	m.bytes.WithLabelValues(handler)
}
