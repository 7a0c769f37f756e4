package real_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// container makes a container in the first pod and starts it.
func (m *monitored) container(ctx context.Context, name string) (id string, err error) {
	if id, err = m.created(ctx, name, nil); err == nil {
		_, err = m.kubelet.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	}
	return id, err
}

func (m *monitored) created(ctx context.Context, name string, annotations map[string]string) (string, error) {
	config := rig.Container(m.here.Config, name, m.image.name, "/bin/top")
	maps.Copy(config.GetAnnotations(), annotations)
	made, err := m.kubelet.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: m.here.ID, Config: config, SandboxConfig: m.here.Config,
	})
	return made.GetContainerId(), err
}

func (m *monitored) removed(ctx context.Context, containers ...string) error {
	var problems []error
	for _, id := range containers {
		_, err := m.kubelet.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// testTraffic does twice, with scrapes between, what the faults have not done: hooks
// that are delivered, and pulls that succeed, two of them as one. After it
// Prometheus has seen all that the dashboard is there to show.
func testTraffic(ctx context.Context, t *testing.T, m *monitored) {
	for i := range 2 {
		id, start := m.container(ctx, "hooked")
		_, stop := m.kubelet.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 5})
		if err := errors.Join(start, stop, m.removed(ctx, id)); err != nil {
			t.Fatal(err)
		}
		m.pullTogether(ctx, t, fmt.Sprintf("%s/lasting/%d:v1", slowHost, i))
		if err := m.scraped(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, seen := range []string{
		`cri_proxy_pulls_total{handler="runc",result="pulled"}`,
		`cri_proxy_pulls_total{handler="runc",result="shared"}`,
		`cri_proxy_pulls_total{handler="runc",result="failed"}`,
		`cri_proxy_pulls_total{handler="isolated",result="pulled"}`,
		`cri_proxy_pulled_bytes_total{handler="isolated"}`,
		`cri_proxy_hook_deliveries_total{event="PostStart",result="delivered"}`,
		`cri_proxy_hook_deliveries_total{event="PostStart",result="failed"}`,
		`cri_proxy_hook_deliveries_total{event="PreStop",result="delivered"}`,
		`cri_proxy_requests_total{backend="beta",code="OK"}`,
		`cri_proxy_requests_total{backend="beta",code="Unavailable"}`,
		`cri_proxy_list_bytes_sum`,
	} {
		if err := m.answers(ctx, query{expr: seen + " > 0"}); err != nil {
			t.Error(err)
		}
	}
}

// pullTogether pulls one image for both handlers, and twice at one time for each.
func (m *monitored) pullTogether(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	push(ctx, t, m, name, rig.Image{})
	var pulling sync.WaitGroup
	failed := make(chan error, 4)
	for range 2 {
		for _, pod := range []*rig.KubeletPod{m.here, m.there} {
			pulling.Go(func() {
				_, err := m.kubelet.Pull(ctx, pod, name)
				failed <- err
			})
		}
	}
	pulling.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
}

// scraped waits until Prometheus has what is so now.
func (m *monitored) scraped(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	now := time.Now()
	return rig.Poll(ctx, func() error {
		result, _, _, err := m.api.Query(ctx, `timestamp(cri_proxy_state_reset_total)`, time.Now())
		if err != nil {
			return err
		}
		if found, ok := result.(model.Vector); !ok || len(found) != 1 || float64(found[0].Value) <= float64(now.UnixMilli())/1000 {
			return fmt.Errorf("nothing was scraped since %s: %v", now, result)
		}
		return nil
	})
}

// reload gives the proxy a configuration that differs in one place.
func (m *monitored) reload(old, changed string) error {
	config, err := os.ReadFile(m.proxy.Config)
	if err != nil {
		return err
	}
	if !bytes.Contains(config, []byte(old)) {
		return fmt.Errorf("the configuration has no %q", old)
	}
	if err := os.WriteFile(m.proxy.Config, bytes.Replace(config, []byte(old), []byte(changed), 1), 0o600); err != nil {
		return err
	}
	pid, err := pidOf(m.proxy.Config)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGHUP)
}

// hang lets the second containerd hang for longer than a read may take, while
// callers wait for it.
func (m *monitored) hang(ctx context.Context) error {
	pid, err := pidOf(filepath.Join(filepath.Dir(m.beta.Socket), "config.toml"))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	const callers = 20
	answered := make(chan error, callers)
	for range callers {
		go func() { answered <- m.lookAt(ctx, m.there) }()
	}
	pause(ctx, 4*time.Second)
	err = syscall.Kill(pid, syscall.SIGCONT)
	for range callers {
		err = errors.Join(err, <-answered)
	}
	return err
}

// damage makes the proxy's state file something else.
func (m *monitored) damage() error {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(m.proxy.Config), "state", "*"))
	if err == nil && len(files) == 0 {
		err = errors.New("there is no state file")
	}
	for _, file := range files {
		err = errors.Join(err, os.WriteFile(file, []byte(strings.Repeat("damaged ", 8<<10)), 0o600))
	}
	return err
}

// startAgain kills the proxy and starts it, until Prometheus has seen the new one.
func (m *monitored) startAgain(ctx context.Context) error {
	if err := errors.Join(m.proxy.Kill(), m.proxy.Start(ctx)); err != nil {
		return err
	}
	return m.scraped(ctx)
}

// firing are the alerts of the rules with short times that fire.
func (m *monitored) firing(ctx context.Context) (map[string]*promv1.Alert, error) {
	rules, err := m.rules(ctx, shortRules)
	found := map[string]*promv1.Alert{}
	for _, rule := range rules {
		for _, alert := range rule.Alerts {
			if alert.State == promv1.AlertStateFiring {
				found[rule.Name] = alert
			}
		}
	}
	return found, err
}

// rules are those of a file, as Prometheus has evaluated them.
func (m *monitored) rules(ctx context.Context, file string) (found []promv1.AlertingRule, err error) {
	all, err := m.api.Rules(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			alerting, ok := rule.(promv1.AlertingRule)
			if !ok {
				return nil, fmt.Errorf("%s has %T, which is no alert", group.File, rule)
			}
			if filepath.Base(group.File) == file {
				found = append(found, alerting)
			}
		}
	}
	return found, nil
}
