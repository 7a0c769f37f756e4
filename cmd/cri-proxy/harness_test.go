package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/state"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestMain makes this binary the command cri-proxy as well, when it is called so:
// "cri-proxy" is in the tests' PATH.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"cri-proxy": main})
}

// leakChecked runs the tests and fails when they leave a goroutine behind.
type leakChecked struct{ *testing.M }

// Run implements testscript.TestingM.
func (m leakChecked) Run() int {
	code := m.M.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// proxy is the whole daemon in this process, in front of fake runtimes.
type proxy struct {
	t       *testing.T
	dir     string
	config  string // TOML.
	log     *logrus.Entry
	disk    *disk // nil = that of the machine.
	daemon  *daemon
	conn    *grpc.ClientConn // Carries frames and messages.
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	hangups chan os.Signal
	cancel  context.CancelFunc
	done    chan error
}

// twoBackends are the default backend alpha with the handler runc and beta with
// the handler isolated, whose runtime there has the same name.
func twoBackends(t *testing.T, extra ...string) (p *proxy, alpha, beta *fakeruntime.Runtime) {
	t.Helper()
	alpha = fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}, UnknownField: true})
	beta = fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}, UnknownField: true})
	p = startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
list_timeout = "1s"
[backends.beta]
endpoint = "`+beta.Endpoint()+`"
list_timeout = "1s"
[handlers.runc]
backend = "alpha"
[handlers.isolated]
backend = "beta"
`+strings.Join(extra, "\n"))
	return p, alpha, beta
}

// startProxy runs the daemon with a configuration, to which sockets and state
// in a folder of the test's are added.
func startProxy(t *testing.T, config string) *proxy {
	t.Helper()
	return startLogging(t, config, quiet())
}

// startLogging is startProxy with a log that the test reads.
func startLogging(t *testing.T, config string, log *logrus.Entry) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "cp") // t.TempDir is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &proxy{t: t, dir: dir, log: log}
	p.config = "version = 1\n" + config + fmt.Sprintf(`
[server]
listen = "%[1]s/s"
shutdown_timeout = "1s"
[admin]
listen = "%[1]s/a"
[state]
dir = "%[1]s/state"
`, dir)
	p.start()
	t.Cleanup(p.stop)
	return p
}

// start runs the daemon, with the state that an earlier one left.
func (p *proxy) start() {
	p.t.Helper()
	cfg, err := configs.Parse("test.toml", []byte(p.config))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // Not the test's: the daemon may end in a cleanup.
	if p.daemon, err = newDaemon(ctx, cfg, p.log); err != nil {
		cancel()
		p.t.Fatal(err)
	}
	if p.disk != nil {
		p.disk.mount(p)
	}
	p.hangups = make(chan os.Signal, 1)
	p.daemon.reloads.path, p.daemon.reloads.asked = filepath.Join(p.dir, "c.toml"), p.hangups
	p.cancel, p.done = cancel, make(chan error, 1)
	go func() { p.done <- errors.Join(p.daemon.run(ctx), p.daemon.close()) }()
	if p.conn, err = rawcri.Dial(filepath.Join(p.dir, "s")); err != nil {
		p.t.Fatal(err)
	}
	p.runtime, p.images = runtimeapi.NewRuntimeServiceClient(p.conn), runtimeapi.NewImageServiceClient(p.conn)
	// It answers only when it has listed its backends.
	waitCtx, stopWaiting := context.WithTimeout(context.Background(), 20*time.Second)
	defer stopWaiting()
	if err := p.daemon.waitServing(waitCtx); err != nil {
		p.t.Fatal(err)
	}
}

// waitServing returns once the daemon answers on its socket.
func (d *daemon) waitServing(ctx context.Context) error {
	for {
		err := d.alive(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// stop ends the daemon as SIGTERM does.
func (p *proxy) stop() {
	p.t.Helper()
	if p.cancel == nil {
		return
	}
	p.cancel()
	p.cancel = nil
	if err := errors.Join(<-p.done, p.conn.Close()); err != nil {
		p.t.Error(err)
	}
}

// restart ends the daemon and runs it again.
func (p *proxy) restart() {
	p.t.Helper()
	p.stop()
	p.start()
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// eventually waits until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within ten seconds: %s", what)
		case <-tick.C:
		}
	}
}

// sandboxConfig is a pod as the kubelet describes it.
func sandboxConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Labels: map[string]string{
			"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": "uid-" + name,
		},
		Annotations: map[string]string{"kubernetes.io/config.seen": "2026-01-01T00:00:00.000000000Z", "kubernetes.io/config.source": "api", "pod": name},
	}
}

// run runs a pod and returns its sandbox's id.
func (p *proxy) run(name, handler string) string {
	p.t.Helper()
	r, err := p.runtime.RunPodSandbox(p.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig(name), RuntimeHandler: handler})
	if err != nil {
		p.t.Fatal(err)
	}
	return r.GetPodSandboxId()
}

// create creates a container of the image app and returns its id.
func (p *proxy) create(sandbox, pod, name string) string {
	p.t.Helper()
	r, err := p.runtime.CreateContainer(p.t.Context(), createRequest(sandbox, pod, name, "app"))
	if err != nil {
		p.t.Fatal(err)
	}
	return r.GetContainerId()
}

func createRequest(sandbox, pod, name, image string) *runtimeapi.CreateContainerRequest {
	return &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox, SandboxConfig: sandboxConfig(pod),
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name},
			Image:    &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image},
			Labels:   map[string]string{"io.kubernetes.container.name": name, "io.kubernetes.pod.uid": "uid-" + pod},
		},
	}
}

// runtimeOf returns a client of a fake runtime, past the proxy.
func runtimeOf(t *testing.T, r *fakeruntime.Runtime) runtimeapi.RuntimeServiceClient {
	t.Helper()
	return runtimeapi.NewRuntimeServiceClient(dial(t, r))
}

func dial(t *testing.T, r *fakeruntime.Runtime) *grpc.ClientConn {
	t.Helper()
	conn, err := rawcri.Dial(strings.TrimPrefix(r.Endpoint(), "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// pinsOnDisk returns the handlers of sandboxes that are on disk.
func (d *daemon) pinsOnDisk() (map[string]string, error) {
	return state.SandboxHandlers(d.store).All()
}
