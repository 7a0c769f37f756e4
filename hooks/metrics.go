package hooks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

type metrics struct {
	deliveries *prometheus.CounterVec
	duration   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, j *journal.Journal) *metrics {
	reg.MustRegister(&journalMetrics{
		journal: j,
		records: prometheus.NewDesc("cri_proxy_journal_records", "Hooks in the journal, finished ones of the last day included.", []string{"state"}, nil),
		oldest:  prometheus.NewDesc("cri_proxy_journal_oldest_seconds", "Age of the oldest hook that is not finished; 0 without one.", nil, nil),
	})
	factory := promauto.With(reg)
	return &metrics{
		deliveries: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "cri_proxy_hook_deliveries_total", Help: "Hooks that were finished, by their result: delivered, failed, skipped or moot.",
		}, []string{"handler", "event", "result"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cri_proxy_hook_duration_seconds", Help: "Time from the first attempt in this process to the end of the last, of hooks that were tried.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"handler", "event"}),
	}
}

// expect lets the counts of a handler's hooks begin at 0: from nothing to 1 is no
// increase that Prometheus sees, and the first hook that fails would be missed.
func (m *metrics) expect(handler string) {
	for _, event := range []journal.Event{journal.PostStart, journal.PreStop} {
		for _, s := range journal.States() {
			if s.Finished() {
				m.deliveries.WithLabelValues(handler, string(event), string(s))
			}
		}
	}
}

func (m *metrics) delivered(r journal.Record, took time.Duration) {
	m.deliveries.WithLabelValues(r.Handler, string(r.Event), string(r.State)).Inc()
	if took > 0 {
		m.duration.WithLabelValues(r.Handler, string(r.Event)).Observe(took.Seconds())
	}
}

// journalMetrics reads the journal when it is asked.
type journalMetrics struct {
	journal         *journal.Journal
	records, oldest *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (m *journalMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.records
	out <- m.oldest
}

// Collect implements [prometheus.Collector].
func (m *journalMetrics) Collect(out chan<- prometheus.Metric) {
	stats, err := m.journal.Stats()
	if err != nil {
		out <- prometheus.NewInvalidMetric(m.records, err)
		return
	}
	for _, s := range journal.States() {
		out <- prometheus.MustNewConstMetric(m.records, prometheus.GaugeValue, float64(stats.ByState[s]), string(s))
	}
	age := 0.0
	if !stats.Oldest.IsZero() {
		age = max(0, time.Since(stats.Oldest).Seconds())
	}
	out <- prometheus.MustNewConstMetric(m.oldest, prometheus.GaugeValue, age)
}
