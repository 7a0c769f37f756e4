package serviceenv

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/cri-proxy/cri-proxy/configs"
)

// Annotation on a pod is "enabled" or "disabled", whatever its handler's
// configuration says.
const Annotation = "cri-proxy.io/service-env"

// sourceAnnotation is the kubelet's own: where a pod's manifest came from.
const sourceAnnotation = "kubernetes.io/config.source"

// maxSize bounds the variables of one container, counted as the kernel gets
// them, name=value and a zero byte: a few thousand Services are enough to make
// every exec in it fail with E2BIG.
const maxSize = 64 << 10

// What can be wrong, for [errors.Is].
var (
	// ErrAnnotation: the pod's annotation asks for what cannot be.
	ErrAnnotation = errors.New("annotation " + Annotation + " of the pod")
	// ErrUnavailable: the Services are not known yet.
	ErrUnavailable = errors.New("the Services are not known yet")
	// ErrTooLarge: the variables are more than a container can be given.
	ErrTooLarge = errors.New("the variables are too large")
)

// Options are what [New] needs. Without File and Config there is no source.
type Options struct {
	Handlers map[string]configs.Handler
	// File is a file of v1.Service objects; "" means the API server.
	File string
	// Config leads to the API server.
	Config *rest.Config

	Registerer prometheus.Registerer
	Log        *logrus.Entry
}

// Variables makes them. It is made by [New], follows its source while
// [Variables.Run] runs, and is safe for concurrent use.
type Variables struct {
	Options
	source   source // nil means that there is none.
	handlers atomic.Pointer[map[string]configs.Handler]
}

// source is where Services come from.
type source interface {
	// services returns what is known now; the error says why nothing is yet.
	services() (lookUp, error)
	run(ctx context.Context)
	state() State
}

// lookUp returns the Services of a namespace. They must not be changed.
type lookUp func(namespace string) []*corev1.Service

// State is what is known of the source.
type State struct {
	Source   string `json:"source"`
	Synced   bool   `json:"synced"` // The Services were read at least once.
	Services int    `json:"services"`
	// Error is why they could not be read last; "" when they could.
	Error string `json:"error,omitempty"`
}

// New returns the variables of a source. It asks nobody for anything yet.
func New(o Options) (*Variables, error) {
	v := &Variables{Options: o}
	v.Configure(o.Handlers)
	if o.File == "" && o.Config == nil {
		return v, nil
	}
	factory := promauto.With(o.Registerer)
	h := &health{log: o.Log, failures: factory.NewCounter(prometheus.CounterOpts{
		Name: "cri_proxy_service_cache_errors_total", Help: "Times that the Services could not be read from their source.",
	})}
	if o.File != "" {
		v.source = newFile(o.File, h)
	} else {
		c, err := newCluster(o.Config, h)
		if err != nil {
			return nil, err
		}
		v.source = c
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cri_proxy_service_cache_synced", Help: "Whether the Services were read at least once, so that containers get their variables.",
	}, func() float64 {
		if v.source.state().Synced {
			return 1
		}
		return 0
	})
	return v, nil
}

// Configure replaces what is configured for the handlers; the source stays.
func (v *Variables) Configure(handlers map[string]configs.Handler) { v.handlers.Store(&handlers) }

func (v *Variables) of(p Pod) configs.HandlerServiceEnv {
	return (*v.handlers.Load())[p.Handler].ServiceEnv
}

// Run follows the source until ctx ends.
func (v *Variables) Run(ctx context.Context) error {
	if v.source != nil {
		v.source.run(ctx)
	}
	return nil
}

// HasSource reports whether containers can get variables at all.
func (v *Variables) HasSource() bool { return v.source != nil }

// State returns what is known of the source; nil when there is none.
func (v *Variables) State() *State {
	if v.source == nil {
		return nil
	}
	s := v.source.state()
	return &s
}

// Pod is what of a container's pod matters here.
type Pod struct {
	Handler, Namespace string
	Annotations        map[string]string
}

// Wanted reports whether a pod's containers are to get variables.
func (v *Variables) Wanted(p Pod) (bool, error) {
	value, given := p.Annotations[Annotation]
	switch {
	case !given:
		return v.of(p).Enabled, nil
	case value == "disabled":
		return false, nil
	case value != "enabled":
		return false, fmt.Errorf("%w: it is %q, it must be \"enabled\" or \"disabled\"", ErrAnnotation, value)
	case v.source == nil:
		return false, fmt.Errorf("%w: it is \"enabled\", but cri-proxy knows no Services on this node; "+
			"its configuration has neither kubernetes.kubeconfig nor service_env.services_file", ErrAnnotation)
	}
	return true, nil
}

// Missing returns the variables that a container of the pod is to get besides
// those whose names are set, which it adds to.
func (v *Variables) Missing(p Pod, set map[string]bool) ([]Variable, error) {
	in, err := v.known(p)
	if err != nil || in == nil {
		return nil, err
	}
	var missing []Variable
	size := 0
	for _, service := range selected(p.Namespace, v.of(p).Namespaces, in) {
		for _, variable := range variablesOf(service) {
			if set[variable.Name] {
				continue
			}
			set[variable.Name] = true
			missing = append(missing, variable)
			size += len(variable.Name) + len("=") + len(variable.Value) + 1
		}
	}
	if size > maxSize {
		return nil, fmt.Errorf("%w: namespace %q has %d with %d bytes, at most %d bytes can be added; "+
			"set enabled = false in the handler's service_env or annotate the pod with %s: disabled",
			ErrTooLarge, p.Namespace, len(missing), size, maxSize, Annotation)
	}
	return missing, nil
}

// known returns the Services; nil when the pod starts without them. As in the
// kubelet a static pod never waits: it may be the API server.
func (v *Variables) known(p Pod) (lookUp, error) {
	if v.source == nil {
		return nil, fmt.Errorf("%w: no source is configured", ErrUnavailable)
	}
	in, err := v.source.services()
	if err == nil {
		return in, nil
	}
	if !isStatic(p) && v.of(p).OnUnavailable != configs.UnavailableSkip {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	v.Log.WithField("namespace", p.Namespace).WithError(err).Warn("a container starts without its Service variables: the Services are not known yet")
	return nil, nil //nolint:nilnil // Nothing is what such a pod gets.
}

func isStatic(p Pod) bool {
	from, ok := p.Annotations[sourceAnnotation]
	return ok && from != "api"
}
