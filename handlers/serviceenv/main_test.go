package serviceenv

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/configs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is one with an address and TCP ports without names but for the first's.
func service(namespace, name, ip string, ports ...int32) *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip},
	}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: p, Protocol: corev1.ProtocolTCP})
	}
	return s
}

// held are Services as a source.
func held(services ...*corev1.Service) lookUp {
	all := byNamespace(services)
	return func(namespace string) []*corev1.Service { return all[namespace] }
}

// rig is Variables with their log and metrics.
type rig struct {
	*Variables
	t        *testing.T
	logged   *logtest.Hook
	registry *prometheus.Registry
}

// newRig has the handlers plain, which is not enabled, and on, skip and wide.
func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	r := &rig{t: t, logged: hook, registry: prometheus.NewRegistry()}
	o.Log, o.Registerer = logrus.NewEntry(logger), r.registry
	o.Handlers = map[string]configs.Handler{
		"plain": {ServiceEnv: configs.HandlerServiceEnv{OnUnavailable: configs.UnavailableFail}},
		"on":    {ServiceEnv: configs.HandlerServiceEnv{Enabled: true, OnUnavailable: configs.UnavailableFail}},
		"skip":  {ServiceEnv: configs.HandlerServiceEnv{Enabled: true, OnUnavailable: configs.UnavailableSkip}},
		"wide":  {ServiceEnv: configs.HandlerServiceEnv{Enabled: true, OnUnavailable: configs.UnavailableFail, Namespaces: []string{"shared", "more"}}},
	}
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Variables = v
	return r
}

// host returns the address that a container in namespace gets for a Service.
func (r *rig) host(namespace, variable string) string {
	r.t.Helper()
	all, err := r.Missing(Pod{Handler: "on", Namespace: namespace}, map[string]bool{})
	if err != nil {
		return "error: " + err.Error()
	}
	for _, v := range all {
		if v.Name == variable {
			return v.Value
		}
	}
	return ""
}

func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}

// warnings counts what was logged loudly.
func (r *rig) warnings() int {
	n := 0
	for _, e := range r.logged.AllEntries() {
		if e.Level <= logrus.WarnLevel {
			n++
		}
	}
	return n
}

func TestMetricsOnlyWithSource(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	if n, err := testutil.GatherAndCount(r.registry); err != nil || n != 0 || r.State() != nil || r.HasSource() {
		t.Errorf("without a source there are %d metrics, %v, and the state %v", n, err, r.State())
	}
	if err := r.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// eventually waits until ok, for at most half a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within half a minute: %s", what)
		case <-tick.C:
		}
	}
}

// replace puts a file in place in one step, as it should be done.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func servicesFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "services.yaml")
	replace(t, path, content)
	return path
}
