package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// observer counts and logs calls, each once, at the one place they all pass.
type observer struct {
	log      *logrus.Entry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	bytes    *prometheus.HistogramVec
}

func newObserver(reg prometheus.Registerer, log *logrus.Entry) *observer {
	factory := promauto.With(reg)
	return &observer{
		log: log,
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "cri_proxy_requests_total", Help: "CRI calls answered, by method, the backend that answered (empty: several or none) and gRPC code.",
		}, []string{"method", "backend", "code"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cri_proxy_request_duration_seconds", Help: "Time from a call's arrival to its end.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120},
		}, []string{"method", "backend"}),
		inFlight: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cri_proxy_requests_in_flight", Help: "CRI calls being served.",
		}, []string{"method"}),
		bytes: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cri_proxy_list_bytes", Help: "Size of list answers; the kubelet takes at most 16 MiB.",
			Buckets: prometheus.ExponentialBuckets(1<<10, 4, 8),
		}, []string{"method"}),
	}
}

// observe is the server's [rawcri.ServerOptions].Observe. Health checks are not
// CRI: the proxy asks itself, and would be seen to be busy by looking.
func (o *observer) observe(call *rawcri.Call) func(error) {
	if call.Method.Service == healthService {
		return func(error) {}
	}
	method := "other" // Names that callers make up must not become labels.
	if call.Method.Known {
		method = call.Method.Name
	}
	began := time.Now()
	inFlight := o.inFlight.WithLabelValues(method)
	inFlight.Inc()
	return func(err error) {
		inFlight.Dec()
		took, code := time.Since(began), status.Code(err)
		o.requests.WithLabelValues(method, call.Backend, code.String()).Inc()
		o.duration.WithLabelValues(method, call.Backend).Observe(took.Seconds())
		if isList(method) && err == nil {
			o.bytes.WithLabelValues(method).Observe(float64(call.Sent))
		}
		o.logCall(call, code, took, err)
	}
}

// isList names the lists whose size grows with the node's pods.
func isList(method string) bool {
	switch method {
	case "ListPodSandbox", "ListContainers", "ListContainerStats", "ListPodSandboxStats", "ListPodSandboxMetrics", "ListImages":
		return true
	default:
		return false
	}
}

// logCall logs failures; of those that belong to normal operation, and of
// successes, only the debug log tells. Requests are never logged: they hold
// credentials and environment variables.
func (o *observer) logCall(call *rawcri.Call, code codes.Code, took time.Duration, err error) {
	level := logrus.WarnLevel
	switch code {
	case codes.OK, codes.NotFound, codes.Canceled, codes.Unimplemented:
		level = logrus.DebugLevel
	}
	if !o.log.Logger.IsLevelEnabled(level) {
		return
	}
	entry := o.log.WithFields(logrus.Fields{
		"method": call.Method.Name, "backend": call.Backend, "code": code.String(), "duration": took.String(),
	})
	switch {
	case call.Private:
		entry = entry.WithField("error", "not logged, since it quotes the request's credentials")
	case err != nil:
		entry = entry.WithError(err)
	}
	entry.Log(level, "call")
}

// backendsUp is a collector, since backends come and go with the configuration.
type backendsUp struct {
	desc *prometheus.Desc
	all  func() []*backend.Backend
}

// Describe implements [prometheus.Collector].
func (u *backendsUp) Describe(out chan<- *prometheus.Desc) { out <- u.desc }

// Collect implements [prometheus.Collector].
func (u *backendsUp) Collect(out chan<- prometheus.Metric) {
	for _, b := range u.all() {
		up := 0.0
		if b.Up() {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(u.desc, prometheus.GaugeValue, up, b.Name)
	}
}

// registerState exports what the backends and the index are at the moment.
func registerState(reg prometheus.Registerer, backends func() []*backend.Backend, index *routing.Index, resets func() float64) {
	reg.MustRegister(&backendsUp{
		desc: prometheus.NewDesc("cri_proxy_backend_up", "Whether the backend answers and its ids are known.", []string{"backend"}, nil),
		all:  backends,
	})
	factory := promauto.With(reg)
	for kind, count := range map[string]func() int{
		"sandbox":   func() int { n, _ := index.Count(); return n },
		"container": func() int { _, n := index.Count(); return n },
	} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cri_proxy_routes", Help: "Ids whose backend is known.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count()) })
	}
	factory.NewCounterFunc(prometheus.CounterOpts{
		Name: "cri_proxy_state_reset_total", Help: "Times the state file was found corrupt and set aside by this process.",
	}, resets)
}
