package real_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// monitored is a node with two containerds whose proxy a Prometheus scrapes, as
// docs/monitoring.md says.
type monitored struct {
	*node

	proxy    *rig.Proxy
	kubelet  *rig.Kubelet
	image    image
	services string // the file of the Services
	here     *rig.KubeletPod
	there    *rig.KubeletPod
	running  map[*rig.KubeletPod]string // a container of each

	prometheus *rig.Prometheus
	api        promv1.API
}

// monitoredConfig is that of its proxy, behind the two handlers, for the file of
// the Services.
const monitoredConfig = `
[service_env]
services_file = %q

[handlers.runc.service_env]
enabled = true
on_unavailable = "skip"

[[handlers.runc.hooks.post_start]]
name = "register"
exec = { command = ["/bin/echo"] }
match = { containers = ["hooked"] }

[[handlers.runc.hooks.pre_stop]]
name = "drain"
exec = { command = ["/bin/echo"] }
match = { containers = ["hooked"] }

[[handlers.runc.hooks.post_start]]
name = "refused"
exec = { command = ["/bin/exit", "3"] }
on_failure = "ignore"
match = { containers = ["failing"] }

[[handlers.runc.hooks.post_start]]
name = "slow"
exec = { command = ["/bin/sleep", "8"] }
timeout = "30s"
wait = false
match = { containers = ["waiting"] }
`

// slowHost is a registry that is slow enough for pulls to meet.
const slowHost = "slow.test"

const services = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: 10.0.0.7, ports: [{port: 5432}]}\n"

// TestMonitoring runs what configs/monitoring and docs/monitoring.md hold: the
// rules and the configurations in promtool, the rules and the dashboard's queries
// in a Prometheus that scrapes a real run, in which every alert is made to fire.
// The first time it takes some minutes to build Prometheus.
//
//nolint:paralleltest,tparallel // One thing happens to the node after the other.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	if os.Getenv("MONITORING") == "" {
		t.Skip("left out: it builds Prometheus; make monitoring runs it")
	}
	ctx := interruptible(t)
	m := newMonitored(ctx, t)
	t.Run("promtool", func(t *testing.T) { testPromtool(ctx, t, m) })
	t.Run("admin-socket", func(t *testing.T) { testAdminSocket(ctx, t, m) })
	m.scrape(ctx, t)
	defer m.live(ctx, t)()
	t.Run("healthy", func(t *testing.T) { testHealthy(ctx, t, m) })
	t.Run("alerts", func(t *testing.T) { testAlerts(ctx, t, m, faultAlerts(m)) })
	t.Run("traffic", func(t *testing.T) { testTraffic(ctx, t, m) })
	t.Run("dashboard", func(t *testing.T) { testDashboard(ctx, t, m) })
	t.Run("variable", func(t *testing.T) { testVariable(ctx, t, m) })
	t.Run("misspelt", func(t *testing.T) { testMisspelt(ctx, t, m) })
	t.Run("restarts", func(t *testing.T) { testAlerts(ctx, t, m, restartAlerts(m)) })
	t.Run("end", func(t *testing.T) { testAlertsEnd(ctx, t, m) })
}

func newMonitored(ctx context.Context, t *testing.T) *monitored {
	t.Helper()
	m := &monitored{node: newNode(ctx, t), running: map[*rig.KubeletPod]string{}}
	if err := m.Parts.BuildPrometheus(ctx, m.Root, os.Stderr); err != nil {
		t.Fatal(err)
	}
	if err := m.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	m.services = filepath.Join(m.Dir, "services.yaml")
	if err := m.writeServices(); err != nil {
		t.Fatal(err)
	}
	var err error
	m.proxy, err = m.Proxy(ctx, rig.ProxyOptions{
		Name: "watched", DefaultHandler: "runc", Metrics: true,
		Config: rig.TwoHandlers(m.alpha, m.beta, second) + fmt.Sprintf(monitoredConfig, m.services),
	})
	if err != nil {
		t.Fatal(err)
	}
	front, err := m.Front(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.alpha.Reach(slowHost, front.Address), m.beta.Reach(slowHost, front.Address)); err != nil {
		t.Fatal(err)
	}
	m.kubelet, m.image = kubelet(t, m.node, m.proxy.Endpoint()), pushImage(ctx, t, m.node)
	m.here, m.there = sandbox(ctx, t, m.kubelet, "runc"), sandbox(ctx, t, m.kubelet, second)
	for _, pod := range []*rig.KubeletPod{m.here, m.there} {
		m.running[pod] = start(ctx, t, m.kubelet, pod, rig.KubeletContainer{Image: m.image.name}, true).ID
	}
	return m
}

func (m *monitored) writeServices() error {
	return os.WriteFile(m.services, []byte(services), 0o600)
}

// prometheusBlocks are the configurations of Prometheus in the document.
func prometheusBlocks(t *testing.T, root string) []rig.Block {
	t.Helper()
	all, err := rig.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	var found []rig.Block
	for _, b := range all {
		if b.Test == "prometheus" {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		t.Fatal("no document has a configuration for Prometheus")
	}
	return found
}

// testPromtool: what promtool does not accept, or not expect, no Prometheus takes.
func testPromtool(ctx context.Context, t *testing.T, m *monitored) {
	folder := filepath.Join(m.Root, "configs", "monitoring")
	for dir, arguments := range map[string][]string{
		folder: {"check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"},
		filepath.Join(m.Root, "test", "tools", "prometheus"): {"test", "rules", "alerts_test.yaml"},
	} {
		if err := m.Parts.Promtool(ctx, dir, nil, arguments...); err != nil {
			t.Error(err)
		}
	}
	metrics, err := m.proxy.AdminGet(ctx, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Parts.Promtool(ctx, folder, bytes.NewReader(metrics), "check", "metrics"); err != nil {
		t.Error(err)
	}
	for i, block := range prometheusBlocks(t, m.Root) {
		// Beside the rules that it names.
		dir := filepath.Join(m.Dir, fmt.Sprintf("documented%d", i))
		copyRules(t, m.Root, dir)
		if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(block.Text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.Parts.Promtool(ctx, dir, nil, "check", "config", "prometheus.yml"); err != nil {
			t.Errorf("%s:%d: %v", block.File, block.Line, err)
		}
	}
}

// copyRules makes a folder with the rules in it, and returns them.
func copyRules(t *testing.T, root, dir string) string {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(root, "configs", "monitoring", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "alerts.yaml"), rules, 0o600); err != nil {
		t.Fatal(err)
	}
	return string(rules)
}

// testAdminSocket runs what the document has for a person on the node.
func testAdminSocket(ctx context.Context, t *testing.T, m *monitored) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("left out: curl is not installed")
	}
	all, err := rig.Blocks(m.Root)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range all {
		if block.Test != "monitoring" {
			continue
		}
		ran++
		script := strings.ReplaceAll(block.Text, "/run/cri-proxy/admin.sock", m.proxy.Admin)
		output, err := exec.CommandContext(ctx, "sh", "-ec", script).CombinedOutput()
		if err != nil || !strings.Contains(string(output), "cri_proxy_backend_up{") {
			t.Errorf("%s:%d: %v\n%s", block.File, block.Line, err, output)
		}
	}
	if ran == 0 {
		t.Error("no document has a command for the metrics")
	}
}

// scrape starts Prometheus with the document's first configuration, changed in
// what is this run's own: the target, and how often.
func (m *monitored) scrape(ctx context.Context, t *testing.T) {
	t.Helper()
	dir := filepath.Join(m.Dir, "scrape")
	rules := copyRules(t, m.Root, dir)
	if err := os.WriteFile(filepath.Join(dir, shortRules), []byte(shortened(rules)), 0o600); err != nil {
		t.Fatal(err)
	}
	config := "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n" + prometheusBlocks(t, m.Root)[0].Text
	for old, own := range map[string]string{
		`targets: \[.*\]`:              fmt.Sprintf("targets: [%q]", m.proxy.Metrics),
		`rule_files: \[alerts\.yaml\]`: "rule_files: [alerts.yaml, " + shortRules + "]",
	} {
		pattern := regexp.MustCompile(old)
		if len(pattern.FindAllString(config, -1)) != 1 {
			t.Fatalf("the document's configuration has not one %s:\n%s", old, config)
		}
		config = pattern.ReplaceAllString(config, own)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.prometheus, err = m.Prometheus(ctx, file); err != nil {
		t.Fatal(err)
	}
	client, err := promapi.NewClient(promapi.Config{Address: m.prometheus.URL})
	if err != nil {
		t.Fatal(err)
	}
	m.api = promv1.NewAPI(client)
	if err := m.scraped(ctx); err != nil {
		t.Fatal(err)
	}
}

// live makes the calls that a kubelet makes all the time, until stop. That some
// fail is what the test is about.
func (m *monitored) live(ctx context.Context, t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	runtime := m.kubelet.Runtime
	var calling sync.WaitGroup
	var all, failed atomic.Int32
	for _, call := range []func() error{
		func() error { _, err := runtime.Version(ctx, &runtimeapi.VersionRequest{}); return err },
		func() error { _, err := runtime.Status(ctx, &runtimeapi.StatusRequest{}); return err },
		func() error { _, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); return err },
		func() error { _, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); return err },
		func() error { return m.lookAt(ctx, m.here) },
		func() error { return m.lookAt(ctx, m.there) },
	} {
		calling.Go(func() {
			for ctx.Err() == nil {
				if all.Add(1); call() != nil {
					failed.Add(1)
				}
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		calling.Wait()
		t.Logf("%d of %d calls failed", failed.Load(), all.Load())
	}
}

// lookAt asks for a pod's container.
func (m *monitored) lookAt(ctx context.Context, pod *rig.KubeletPod) error {
	_, err := m.kubelet.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: m.running[pod]})
	return err
}

// pause lets time go by where nothing can be waited for.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
