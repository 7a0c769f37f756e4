package imageservice

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/handlers"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is both fronts on a socket, in front of fake runtimes.
type node struct {
	t        *testing.T
	service  *Service
	registry *prometheus.Registry
	log      *syncBuffer // At the most talkative level.
	runtime  runtimeapi.RuntimeServiceClient
	images   runtimeapi.ImageServiceClient
}

// syncBuffer is a buffer that a logger and a test share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// fake is a runtime that runs everything that the tests' handlers are called.
func fake(t *testing.T, name string) *fakeruntime.Runtime {
	t.Helper()
	return fakeruntime.Start(t, fakeruntime.Options{Name: name, Runtimes: []string{"open", "tenant", "other"}})
}

// oneStore are the handlers open, the default one, and tenant, with these
// settings, in one store.
func oneStore(t *testing.T, images string) (n *node, both, same *fakeruntime.Runtime) {
	t.Helper()
	a := fake(t, "a")
	return startNode(t, nodeConfig(a, a, images)), a, a
}

// twoStores are the same in a store each.
func twoStoresOf(t *testing.T, images string) (n *node, open, tenant *fakeruntime.Runtime) {
	t.Helper()
	a, b := fake(t, "a"), fake(t, "b")
	return startNode(t, nodeConfig(a, b, images)), a, b
}

func nodeConfig(open, tenant *fakeruntime.Runtime, images string) string {
	config := "default_handler = \"open\"\n[backends.a]\nendpoint = \"" + open.Endpoint() + "\"\n"
	second := "a"
	if tenant != open {
		second = "b"
		config += "[backends.b]\nendpoint = \"" + tenant.Endpoint() + "\"\n"
	}
	return config + "[handlers.open]\nbackend = \"a\"\n[handlers.tenant]\nbackend = \"" + second + "\"\n[handlers.tenant.images]\n" + images + "\n"
}

func startNode(t *testing.T, config string) *node {
	t.Helper()
	cfg, err := configs.Parse("test.toml", []byte("version = 1\n"+config))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, registry: prometheus.NewRegistry(), log: &syncBuffer{}}
	logger := logrus.New()
	logger.SetOutput(n.log)
	logger.SetLevel(logrus.TraceLevel)
	log := logrus.NewEntry(logger)
	catalog, table, index := rawcri.NewCatalog(), routing.NewTable(cfg), routing.NewIndex()
	set, err := backend.New(backend.Options{Config: cfg, Catalog: catalog, Table: table, Index: index, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	set.Start(t.Context())
	n.service = New(Options{Backends: set, Table: table, Index: index, Log: log, Metrics: n.registry})
	front := handlers.New(handlers.Options{
		Backends: set, Table: table, Index: index, Log: log, PrepareImage: n.service.Prepare,
		Pins: handlers.Pins{Put: func(string, string) error { return nil }, Delete: func(...string) error { return nil }},
	})
	n.serve(rawcri.NewServer(rawcri.ServerOptions{
		Catalog:  catalog,
		Services: map[string]rawcri.Handler{rawcri.RuntimeService: front.Handle, rawcri.ImageService: n.service.Handle},
		Observe:  func(*rawcri.Call) func(error) { return func(error) {} }, Log: log,
	}))
	return n
}

func (n *node) serve(server *rawcri.Server) {
	n.t.Helper()
	dir, err := os.MkdirTemp("", "is") // t.TempDir is too long for a socket.
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "s")) //nolint:noctx // Listening on a unix socket does not block.
	if err != nil {
		n.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := rawcri.Dial(filepath.Join(dir, "s"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		err := conn.Close()
		server.Shutdown(5 * time.Second)
		if err := errors.Join(err, <-served, os.RemoveAll(dir)); err != nil {
			n.t.Error(err)
		}
	})
	n.runtime, n.images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
}

// kubeletOf makes the calls of a kubelet, its gate RuntimeClassInImageCriApi
// off or on.
type kubeletOf struct {
	*node
	gate bool
}

// gates are the gate's two settings, by the names of their tests.
func gates() map[string]bool { return map[string]bool{"gate off": false, "gate on": true} }

// ways are a kubelet with its gate off and on, in front of one store and of two.
func ways() map[string]func(t *testing.T, images string) (k kubeletOf, open, tenant *fakeruntime.Runtime) {
	all := map[string]func(*testing.T, string) (kubeletOf, *fakeruntime.Runtime, *fakeruntime.Runtime){}
	for name, topology := range map[string]func(*testing.T, string) (*node, *fakeruntime.Runtime, *fakeruntime.Runtime){
		"one store": oneStore, "two stores": twoStoresOf,
	} {
		for gate, on := range gates() {
			all[name+", "+gate] = func(t *testing.T, images string) (kubeletOf, *fakeruntime.Runtime, *fakeruntime.Runtime) {
				t.Helper()
				n, open, tenant := topology(t, images)
				return kubeletOf{n, on}, open, tenant
			}
		}
	}
	return all
}

// podOf is a pod as the kubelet knows it.
type podOf struct {
	handler, sandbox string
	config           *runtimeapi.PodSandboxConfig
	auths            []*runtimeapi.AuthConfig // Of its pull secrets.
}

func (n *node) run(name, handler string, auths ...*runtimeapi.AuthConfig) *podOf {
	n.t.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata:    &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
		Labels:      map[string]string{"io.kubernetes.pod.uid": "uid-" + name},
		Annotations: map[string]string{"kubernetes.io/config.seen": "2026-01-01T00:00:00Z " + name, "kubernetes.io/config.source": "api"},
	}
	answer, err := n.runtime.RunPodSandbox(n.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		n.t.Fatal(err)
	}
	return &podOf{handler: handler, sandbox: answer.GetPodSandboxId(), config: config, auths: auths}
}

// with is the pod with another annotation.
func (p podOf) with(key, value string) *podOf {
	config := &runtimeapi.PodSandboxConfig{Metadata: p.config.GetMetadata(), Labels: p.config.GetLabels(), Annotations: maps.Clone(p.config.GetAnnotations())}
	config.Annotations[key] = value
	p.config = config
	return &p
}

func (k kubeletOf) spec(p *podOf, image string) *runtimeapi.ImageSpec {
	if !strings.ContainsAny(image, ":@") {
		image += ":latest"
	}
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: p.config.GetAnnotations()}
	if k.gate {
		spec.RuntimeHandler = p.handler
	}
	return spec
}

func (k kubeletOf) status(spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	answer, err := k.images.ImageStatus(k.t.Context(), &runtimeapi.ImageStatusRequest{Image: spec})
	return answer.GetImage(), err
}

var errNeverPull = errors.New("ErrImageNeverPull")

// ensure is the kubelet's EnsureImageExists (pkg/kubelet/images), by the pod's
// imagePullPolicy.
func (k kubeletOf) ensure(p *podOf, image, policy string) (ref string, pulls int, err error) {
	k.t.Helper()
	if policy != "Always" {
		found, err := k.status(k.spec(p, image))
		if err != nil || found != nil {
			return found.GetId(), 0, err
		}
		if policy == "Never" {
			return "", 0, errNeverPull
		}
	}
	auths := p.auths
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	for _, auth := range auths {
		pulls++
		var answer *runtimeapi.PullImageResponse
		answer, err = k.images.PullImage(k.t.Context(), &runtimeapi.PullImageRequest{Image: k.spec(p, image), Auth: auth, SandboxConfig: p.config})
		if err == nil {
			size, err := k.status(k.spec(p, image))
			if err != nil || size == nil {
				k.t.Errorf("the size of %s after its pull: %v, %v", image, size, err)
			}
			return answer.GetImageRef(), pulls, nil
		}
	}
	return "", pulls, err
}

// volume is a mount of an image that ensure found.
func volume(image, ref string) *runtimeapi.Mount {
	return &runtimeapi.Mount{ContainerPath: "/v", Image: &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: image}}
}

// create is the end of the kubelet's startContainer.
func (k kubeletOf) create(p *podOf, name, image, ref string, volumes ...*runtimeapi.Mount) error {
	_, err := k.runtime.CreateContainer(k.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: p.sandbox, SandboxConfig: p.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Mounts: volumes,
			Image: &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: image},
		},
	})
	return err
}

// start is the kubelet's startContainer, as far as images are concerned.
func (k kubeletOf) start(p *podOf, name, image, policy string, volumes ...*runtimeapi.Mount) (pulls int, err error) {
	k.t.Helper()
	ref, pulls, err := k.ensure(p, image, policy)
	if err != nil {
		return pulls, err
	}
	// The image's user: without an answer the container would run as root.
	if found, err := k.status(&runtimeapi.ImageSpec{Image: image}); err != nil || found == nil {
		k.t.Errorf("the user of %s: %v, %v", image, found, err)
	}
	return pulls, k.create(p, name, image, ref, volumes...)
}

// wantStart fails unless the container starts after so many pulls.
func (k kubeletOf) wantStart(p *podOf, name, image, policy string, want int) {
	k.t.Helper()
	if pulls, err := k.start(p, name, image, policy); err != nil || pulls != want {
		k.t.Errorf("container %s of %s: %d pulls, %v; want %d and none", name, p.config.GetMetadata().GetName(), pulls, err, want)
	}
}

// wantCode fails unless err has this code and all these texts.
func wantCode(t *testing.T, err error, code codes.Code, texts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("%v, want %s", err, code)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

// bounded is a context for what takes long only if it is broken.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok, for at most twenty seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := bounded(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// wantPulls fails unless each fake got that many.
func wantPulls(t *testing.T, want map[*fakeruntime.Runtime]int) {
	t.Helper()
	for fake, n := range want {
		if got := len(fake.Calls("PullImage")); got != n {
			t.Errorf("%s got %d pulls, want %d", fake.Endpoint(), got, n)
		}
	}
}
