package real_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// The events, as `cri-proxy hooks list` names them.
const (
	postStart = "PostStart"
	preStop   = "PreStop"
)

// hooked is one containerd with proxies in front that deliver hooks.
type hooked struct {
	*node

	proxy      *rig.Proxy
	front      runtimeapi.RuntimeServiceClient // through the proxy
	containerd runtimeapi.RuntimeServiceClient // past it
	image      image
	dir        string // Each container has a folder in it, which it sees as /hooks.
}

// hookRecord is what the tests read of `cri-proxy hooks list`.
type hookRecord struct {
	ID, State, Event, Hook, Source, Kind, Container, Error string

	Attempts int
}

// TestHooks delivers hooks in a real containerd: after the start, before the
// stop, never past the grace period, and across kills of the proxy. With
// HOOKS_LONG=1, as in `make integration HOOKS_LONG=1`, it does so for longer and
// kills more often.
func TestHooks(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	if err := n.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	n.alpha = startContainerd(ctx, t, n, "alpha")
	for name, test := range map[string]func(context.Context, *testing.T, *hooked){
		"table":            testHookTable,
		"match":            testHookMatch,
		"ensured":          testEnsured,
		"grace":            testGrace,
		"shorter":          testShorter,
		"cut-off":          testCutOff,
		"cut-off-for-long": testCutOffForLong,
		"kills":            testKills,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(ctx, t, newHooked(t, n))
		})
	}
}

// isLong is what HOOKS_LONG asks for.
func isLong() bool { return os.Getenv("HOOKS_LONG") != "" }

func newHooked(t *testing.T, n *node) *hooked {
	t.Helper()
	return &hooked{node: n, containerd: kubelet(t, n, n.alpha.Endpoint()).Runtime, dir: t.TempDir()}
}

// serve starts the proxy with handlers: a name of each and its hooks, as in the
// configuration file.
func (h *hooked) serve(ctx context.Context, t *testing.T, name, logLevel string, handlers map[string]string) {
	t.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, "[backends.alpha]\nendpoint = %q\n[handlers.plain]\nbackend = \"alpha\"\nruntime = \"runc\"\n", h.alpha.Endpoint())
	for handler, hooks := range handlers {
		fmt.Fprintf(&config, "[handlers.%s]\nbackend = \"alpha\"\nruntime = \"runc\"\n%s\n", handler, hooks)
	}
	var err error
	h.proxy, err = h.Proxy(ctx, rig.ProxyOptions{Name: name, DefaultHandler: "plain", LogLevel: logLevel, Config: config.String()})
	if err != nil {
		t.Fatal(err)
	}
	h.front, h.image = kubelet(t, h.node, h.proxy.Endpoint()).Runtime, pushImage(ctx, t, h.node)
	run(ctx, t, crictl(t, h.node, h.proxy.Endpoint()), "pull", h.image.name)
}

// hookPod is a pod whose containers have hooks.
type hookPod struct {
	*hooked

	config *runtimeapi.PodSandboxConfig
	id     string
}

// runPod makes a pod; edit, if it is not nil, changes what is asked for.
func (h *hooked) runPod(ctx context.Context, t *testing.T, handler, name string, edit func(*runtimeapi.PodSandboxConfig)) *hookPod {
	t.Helper()
	p := &hookPod{hooked: h, config: newPod(t, h.node, name)}
	if edit != nil {
		edit(p.config)
	}
	made, err := h.front.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler})
	if err != nil {
		t.Fatal(err)
	}
	p.id = made.GetPodSandboxId()
	return p
}

func (p *hookPod) remove(ctx context.Context, t *testing.T) {
	t.Helper()
	_, stop := p.front.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
	_, remove := p.front.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	if err := errorOr(stop, remove); err != nil {
		t.Error(err)
	}
}

// folder is what a container sees as /hooks.
func (p *hookPod) folder(container string) string {
	return filepath.Join(p.dir, p.config.GetMetadata().GetName(), container)
}

func (p *hookPod) container(name string, command ...string) (*runtimeapi.ContainerConfig, error) {
	c := rig.Container(p.config, name, p.image.name, command...)
	c.Mounts = []*runtimeapi.Mount{{HostPath: p.folder(name), ContainerPath: "/hooks"}}
	return c, os.MkdirAll(p.folder(name), 0o755)
}

func (p *hookPod) create(ctx context.Context, c *runtimeapi.ContainerConfig) (string, error) {
	made, err := p.front.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
	return made.GetContainerId(), err
}

// start makes a container and starts it.
func (p *hookPod) start(ctx context.Context, name string, annotations map[string]string, command ...string) (id string, err error) {
	c, err := p.container(name, command...)
	if err != nil {
		return "", err
	}
	maps.Copy(c.GetAnnotations(), annotations)
	if id, err = p.create(ctx, c); err != nil {
		return "", err
	}
	if _, err = p.front.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		return "", err
	}
	return id, p.awaitReady(ctx, name)
}

// awaitReady waits until a container hears TERM: a first process of a container
// that has not asked for a signal yet does not get it.
func (p *hookPod) awaitReady(ctx context.Context, container string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return rig.Poll(ctx, func() error {
		if strings.Contains(p.printed(container), " stdout F ") || p.written(container) == "RUNS\n" {
			return nil
		}
		return fmt.Errorf("%s is not ready", container)
	})
}

// written is what hooks wrote to /hooks/log, and printed what the container
// itself printed.
func (p *hookPod) written(container string) string {
	return contentOf(filepath.Join(p.folder(container), "log"))
}

func (p *hookPod) printed(container string) string {
	return contentOf(filepath.Join(p.config.GetLogDirectory(), container+"_0.log"))
}

// contentOf is a file's content, or why there is none.
func contentOf(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// status asks the containerd itself.
func (h *hooked) status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	answer, err := h.containerd.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return answer.GetStatus(), err
}

// awaitEnd waits until the containerd says that a container has ended.
func (h *hooked) awaitEnd(ctx context.Context, id string) (s *runtimeapi.ContainerStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = rig.Poll(ctx, func() (err error) {
		if s, err = h.status(ctx, id); err == nil && s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
			err = fmt.Errorf("the container is %s", s.GetState())
		}
		return err
	})
	return s, err
}

func (h *hooked) stop(ctx context.Context, id string, grace int64) error {
	_, err := h.front.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
	return err
}

// records are the hooks of a container, as the admin socket tells them.
func (h *hooked) records(ctx context.Context, container string) ([]hookRecord, error) {
	answer, err := h.proxy.AdminGet(ctx, "/v1/hooks")
	return recordsOf(answer, err, container)
}

// listed is the same from the command.
func (h *hooked) listed(ctx context.Context, container string) ([]hookRecord, error) {
	answer, err := h.proxy.Command(ctx, "hooks", "list", "-o", "json").Output()
	return recordsOf(answer, err, container)
}

func recordsOf(answer []byte, err error, container string) ([]hookRecord, error) {
	var report struct{ Hooks []hookRecord }
	if err = cmp.Or(err, json.Unmarshal(answer, &report)); err != nil {
		return nil, err
	}
	var own []hookRecord
	for _, r := range report.Hooks {
		if r.Container == container {
			own = append(own, r)
		}
	}
	return own, nil
}

// awaitRecord waits until a hook of the container is in a state.
func (h *hooked) awaitRecord(ctx context.Context, container, hook, state string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return rig.Poll(ctx, func() error {
		records, err := h.records(ctx, container)
		for _, r := range records {
			if r.Hook == hook && r.State == state {
				return nil
			}
		}
		return cmp.Or(err, fmt.Errorf("no hook %q is %s: %+v", hook, state, records))
	})
}

// hookMetrics are the counts of deliveries of a handler, by event and result,
// without those that are 0.
func (h *hooked) hookMetrics(ctx context.Context, t *testing.T, handler string) map[string]int {
	t.Helper()
	text, err := h.proxy.AdminGet(ctx, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var event, result string
		var count int
		line = strings.NewReplacer(`"`, " ", ",", " ").Replace(line)
		format := "cri_proxy_hook_deliveries_total{event= %s  handler= " + handler + "  result= %s } %d"
		if _, err := fmt.Sscanf(line, format, &event, &result, &count); err == nil && count > 0 {
			counts[event+" "+result] = count
		}
	}
	return counts
}
