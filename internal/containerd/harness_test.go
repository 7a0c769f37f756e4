package containerd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/plugins"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin" // The parts of a containerd that a store needs.
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// TestMain: containerd's event exchange has no end, and its garbage collector
// may be told of something when it has ended.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/docker/go-events.(*Broadcaster).run"),
		goleak.IgnoreAnyFunction("github.com/containerd/containerd/v2/plugins/gc.(*gcScheduler).mutationCallback.func1"),
	)
}

// The snapshotters of the containerds here. Both are the native one.
const (
	one = "one"
	two = "two"
)

// newContainerd runs the image half of a containerd in this process: its own
// metadata, content, garbage collection and services, on disk. Only layers are
// applied without mounting, which would take root.
func newContainerd(t *testing.T) *Store {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server := grpc.NewServer(grpc.WaitForHandlers(true)) // They write below t.TempDir.
	var closers []io.Closer
	started := plugin.NewPluginSet()
	root := t.TempDir()
	for _, r := range parts() {
		dir := filepath.Join(root, r.URI())
		ic := plugin.NewContext(ctx, started, map[string]string{plugins.PropertyRootDir: dir, plugins.PropertyStateDir: dir})
		ic.Config = r.Config
		p := r.Init(ic)
		instance, err := p.Instance()
		if err != nil {
			t.Fatalf("start %s: %v", r.URI(), err)
		}
		if err := started.Add(p); err != nil {
			t.Fatal(err)
		}
		if service, ok := instance.(interface{ Register(*grpc.Server) error }); ok {
			if err := service.Register(server); err != nil {
				t.Fatal(err)
			}
		}
		if closer, ok := instance.(io.Closer); ok {
			closers = append(closers, closer)
		}
	}
	store := serve(t, server)
	t.Cleanup(func() {
		cancel()
		server.Stop()
		for _, c := range slices.Backward(closers) {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return store
}

// parts are the parts of a containerd, each after those that it needs.
func parts() []plugin.Registration {
	all := []plugin.Registration{
		snapshotterPart(one), snapshotterPart(two),
		{Type: plugins.DiffPlugin, ID: "walking", Requires: []plugin.Type{plugins.MetadataPlugin}, InitFn: newUnpacker},
	}
	var joined plugin.Registry
	for _, r := range slices.Concat(all, registry.Graph(func(*plugin.Registration) bool { return false })) {
		joined = joined.Register(&r)
	}
	return joined.Graph(func(*plugin.Registration) bool { return false })
}

func snapshotterPart(name string) plugin.Registration {
	return plugin.Registration{Type: plugins.SnapshotPlugin, ID: name, InitFn: func(ic *plugin.InitContext) (any, error) {
		return native.NewSnapshotter(ic.Properties[plugins.PropertyRootDir])
	}}
}

// unpacker is containerd's differ without a mount: the native snapshotter's
// mounts are all plain folders.
type unpacker struct {
	diff.Comparer
	content content.Store
}

func newUnpacker(ic *plugin.InitContext) (any, error) {
	metadata, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, err
	}
	return unpacker{content: metadata.(interface{ ContentStore() content.Store }).ContentStore()}, nil //nolint:errcheck // It is containerd's own part.
}

// Apply implements diff.Applier.
func (u unpacker) Apply(ctx context.Context, layer ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	data, err := content.ReadBlob(ctx, u.content, layer)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := archive.Apply(ctx, mounts[0].Source, bytes.NewReader(data), archive.WithNoSameOwner()); err != nil {
		return ocispec.Descriptor{}, err
	}
	return describe(ocispec.MediaTypeImageLayer, data), nil
}

// serve returns a store on the server, over a connection like a backend's.
func serve(t *testing.T, server *grpc.Server) *Store {
	t.Helper()
	dir, err := os.MkdirTemp("", "x")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := rawcri.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		must(t, conn.Close())
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
		must(t, os.RemoveAll(dir))
	})
	return New(conn)
}

// remove takes names of images away, as CRI does.
func remove(t *testing.T, s *Store, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := s.images.Delete(inNamespace(t.Context()), &imagesapi.DeleteImageRequest{Name: name})
		must(t, err)
	}
}

// inventory is all that a store has.
type inventory struct {
	Images    map[string]string            // The target's digest by name.
	Labels    map[string]map[string]string // Of the images.
	Blobs     []string
	Ingests   []string
	Leases    []string
	Snapshots []string // As snapshotter/name.
}

// inventoryOf collects a store's garbage and lists what is left.
func inventoryOf(t *testing.T, s *Store) inventory {
	t.Helper()
	ctx := inNamespace(t.Context())
	collect(t, s)
	found := inventory{Images: map[string]string{}, Labels: map[string]map[string]string{}}
	for name, image := range imagesOf(t, s) {
		found.Images[name], found.Labels[name] = image.Target.Digest.String(), image.Labels
	}
	must(t, s.content.Walk(ctx, func(i content.Info) error {
		found.Blobs = append(found.Blobs, i.Digest.String())
		return nil
	}))
	statuses, err := s.content.ListStatuses(ctx)
	must(t, err)
	for _, status := range statuses {
		found.Ingests = append(found.Ingests, status.Ref)
	}
	leases, err := s.leases.List(ctx)
	must(t, err)
	for _, lease := range leases {
		found.Leases = append(found.Leases, lease.ID)
	}
	for _, name := range []string{one, two} {
		must(t, s.snapshotter(name).Walk(ctx, func(_ context.Context, i snapshots.Info) error {
			found.Snapshots = append(found.Snapshots, name+"/"+i.Name)
			return nil
		}))
	}
	slices.Sort(found.Blobs)
	slices.Sort(found.Snapshots)
	return found
}

// collect runs the garbage collector, which the end of a lease can wait for.
func collect(t *testing.T, s *Store) {
	t.Helper()
	err := s.leased(inNamespace(t.Context()), func(context.Context) error { return io.EOF })
	if err == nil || strings.Contains(err.Error(), "delete") {
		t.Fatalf("collect garbage: %v", err)
	}
}

func imagesOf(t *testing.T, s *Store) map[string]images.Image {
	t.Helper()
	ctx := inNamespace(t.Context())
	answer, err := s.images.List(ctx, &imagesapi.ListImagesRequest{})
	must(t, err)
	found := map[string]images.Image{}
	for _, i := range answer.GetImages() {
		found[i.GetName()] = fromAPI(i)
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
