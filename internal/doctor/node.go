package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/kubelet"
)

// askTime is how long one runtime, or the proxy, has for all questions.
const askTime = 5 * time.Second

// Options say which node is examined, and from where.
type Options struct {
	// Config is the configuration file, below Root.
	Config string
	// Root is the directory below which the node's files and sockets are; "" is /.
	Root string
	// Version is this program's own.
	Version string
	// RuntimeClasses returns the handlers of the cluster's RuntimeClasses by the
	// classes' names.
	RuntimeClasses func(ctx context.Context, cfg *configs.Config) (map[string]string, error)
	// Sockets returns what "ss -xpnH" prints; nil where the examined node is not
	// the one that this runs on.
	Sockets func(ctx context.Context) (string, error)
	// Timeout is how long each of those that are asked has; 0 is five seconds.
	Timeout time.Duration
	// DiskFree returns the free and all bytes of a file's filesystem; nil asks the
	// kernel.
	DiskFree func(path string) (free, total uint64, err error)
}

// node is what is known of a node, gathered once before anything is judged.
type node struct {
	Options
	cfg        *configs.Config
	backends   []*runtime // The default handler's first, then by name.
	kubelet    kubelet.Settings
	kubeletErr error
	proxy      proxy
	findings   []Finding
}

// Examine looks at everything. The findings are in the order of the way of a
// request: the configuration, the proxy, its runtimes, the kubelet, the rest.
func Examine(ctx context.Context, o Options) []Finding {
	n := &node{Options: o}
	if n.DiskFree == nil {
		n.DiskFree = diskFree
	}
	if n.Timeout == 0 {
		n.Timeout = askTime
	}
	if !n.checkConfiguration() {
		n.about("node", "").skip("everything else depends on the configuration")
		return n.findings
	}
	n.gather(ctx)
	n.checkProxy(ctx)
	n.checkHooks(ctx)
	for _, r := range n.backends {
		n.checkBackend(r)
	}
	n.checkHandlers()
	n.checkCgroupDrivers()
	n.checkSockets()
	n.checkKubelet()
	n.checkClients(ctx)
	n.checkCNI()
	n.checkRuntimeClasses(ctx)
	n.checkImageFilesystems()
	n.checkState()
	n.checkFiles()
	n.checkUnit()
	return n.findings
}

// path is where a file of the node is.
func (n *node) path(file string) string {
	if n.Root == "" {
		return file
	}
	return filepath.Join(n.Root, file)
}

func (n *node) checkConfiguration() bool {
	c := n.about("configuration", n.Config)
	cfg, err := configs.Load(n.path(n.Config))
	problems, invalid := errors.AsType[configs.Problems](err)
	switch {
	case invalid:
		for _, p := range problems {
			c.problem("correct it; cri-proxy config default explains every key", "%s", p)
		}
	case errors.Is(err, fs.ErrPermission):
		c.skip("%v: run this as root", err)
	case err != nil:
		c.problem("write it: cri-proxy install makes one from the containerd of the node", "%v", err)
	default:
		n.cfg = cfg
		c.ok("valid: %d handlers on %d backends", len(cfg.Handlers), len(cfg.Backends))
	}
	return n.cfg != nil
}

func (n *node) gather(ctx context.Context) {
	n.kubelet, n.kubeletErr = kubelet.Read(n.path("/"))
	standard := n.cfg.Handlers[n.cfg.DefaultHandler].Backend
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Backends)) {
		n.backends = append(n.backends, &runtime{name: name, cfg: n.cfg.Backends[name]})
	}
	slices.SortStableFunc(n.backends, func(a, b *runtime) int {
		return cmp.Compare(rank(a.name != standard), rank(b.name != standard))
	})
	var wg sync.WaitGroup
	for _, r := range n.backends {
		wg.Go(func() { r.ask(ctx, n) })
	}
	wg.Wait()
}

func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

// runtime returns what is known of a backend.
func (n *node) runtime(backend string) *runtime {
	for _, r := range n.backends {
		if r.name == backend {
			return r
		}
	}
	return &runtime{name: backend, err: errors.New("it is not in the configuration")}
}

func diskFree(path string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	size := uint64(s.Bsize)
	return s.Bavail * size, s.Blocks * size, nil
}
