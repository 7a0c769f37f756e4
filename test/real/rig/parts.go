package rig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Parts are the folders of the programs that a real node is made of.
type Parts struct {
	Containerd string // containerd, containerd-shim-runc-v2, ctr
	Runc       string // runc
	CNI        string // bridge, host-local, loopback, portmap
	CRITools   string // crictl, critest.test
	Registry   string // registry

	Containerd17 string // containerd, containerd-shim-runc-v2; "" until BuildContainerd17

	Kubernetes string // kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl; "" until BuildCluster
	Etcd       string // server; "" until BuildCluster

	Prometheus string // prometheus, promtool; "" until BuildPrometheus
}

// tool is one module below test/tools and how its programs are built.
type tool struct {
	name   string
	module string     // whose version in go.mod names the result
	stamp  string     // the variable that its programs keep their version in; "" for none
	builds [][]string // arguments of the go command, without "-o" and "-ldflags"
	folder func(*Parts) *string
}

func tools() []tool {
	build := []string{"build", "-trimpath", "tool"}
	return []tool{
		{
			name: "runc", module: "github.com/opencontainers/runc",
			builds: [][]string{{"build", "-trimpath", "-tags=seccomp", "tool"}},
			folder: func(p *Parts) *string { return &p.Runc },
		},
		{
			name: "cni", module: "github.com/containernetworking/plugins",
			builds: [][]string{build},
			folder: func(p *Parts) *string { return &p.CNI },
		},
		{
			name: "containerd", module: "github.com/containerd/containerd/v2",
			stamp:  "github.com/containerd/containerd/v2/version.Version",
			builds: [][]string{build},
			folder: func(p *Parts) *string { return &p.Containerd },
		},
		{
			name: "registry", module: "github.com/distribution/distribution/v3",
			builds: [][]string{build},
			folder: func(p *Parts) *string { return &p.Registry },
		},
		{
			name: "critools", module: "sigs.k8s.io/cri-tools",
			stamp:  "sigs.k8s.io/cri-tools/pkg/version.Version",
			builds: [][]string{build, {"test", "-c", "-trimpath", "sigs.k8s.io/cri-tools/cmd/critest"}},
			folder: func(p *Parts) *string { return &p.CRITools },
		},
	}
}

// Build makes the parts of a real node from the modules below test/tools of
// the repository in root. What was built before, by any checkout, is taken from
// the user's cache; what must be built is announced on progress.
func Build(ctx context.Context, root string, progress io.Writer) (Parts, error) {
	var parts Parts
	for _, t := range tools() {
		if err := parts.add(ctx, t, root, progress); err != nil {
			return Parts{}, err
		}
	}
	return parts, nil
}

// BuildContainerd17 adds containerd 1.7, which only few rigs need. Call it
// before New.
func (p *Parts) BuildContainerd17(ctx context.Context, root string, progress io.Writer) error {
	return p.add(ctx, tool{
		name: "containerd17", module: "github.com/containerd/containerd",
		stamp:  "github.com/containerd/containerd/version.Version",
		builds: [][]string{{"build", "-trimpath", "tool"}},
		folder: func(p *Parts) *string { return &p.Containerd17 },
	}, root, progress)
}

// BuildCluster adds etcd and Kubernetes, which take two cores some ten minutes
// the first time. Call it before New.
func (p *Parts) BuildCluster(ctx context.Context, root string, progress io.Writer) error {
	etcd := tool{
		name: "etcd", module: "go.etcd.io/etcd/server/v3",
		builds: [][]string{{"build", "-trimpath", "tool"}},
		folder: func(p *Parts) *string { return &p.Etcd },
	}
	kubernetes := tool{
		name: "kubernetes", module: "k8s.io/kubernetes",
		stamp:  "k8s.io/component-base/version.gitVersion",
		builds: [][]string{{"build", "-trimpath", "tool"}},
		folder: func(p *Parts) *string { return &p.Kubernetes },
	}
	return errors.Join(p.add(ctx, etcd, root, progress), p.add(ctx, kubernetes, root, progress))
}

func (p *Parts) add(ctx context.Context, t tool, root string, progress io.Writer) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	folder, err := t.ensure(ctx, root, cache, progress)
	if err != nil {
		return fmt.Errorf("build %s: %w", t.name, err)
	}
	*t.folder(p) = folder
	return nil
}

// Cache is the folder that all checkouts of a user keep what was built in.
func Cache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache for the built parts (set HOME or XDG_CACHE_HOME): %w", err)
	}
	return filepath.Join(cache, "cri-proxy"), nil
}

// ensure returns the folder of the tool's programs and builds them if it is not
// there. It is put in place by one rename, so that a build that is broken off,
// or two at one time, never leave half a folder.
func (t tool) ensure(ctx context.Context, root, cache string, progress io.Writer) (string, error) {
	module := filepath.Join(root, "test", "tools", t.name)
	version, hash, err := t.identify(module)
	if err != nil {
		return "", err
	}
	final := filepath.Join(cache, t.name, version+"-"+hash)
	if exists(final) {
		return filepath.Join(final, "bin"), nil
	}
	begin := time.Now()
	fmt.Fprintf(progress, "building %s %s …\n", t.name, version)
	if err := t.build(ctx, module, version, final); err != nil {
		return "", err
	}
	fmt.Fprintf(progress, "built    %s in %s\n", t.name, time.Since(begin).Round(time.Second))
	return filepath.Join(final, "bin"), nil
}

func (t tool) build(ctx context.Context, module, version, final string) (err error) {
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(final), ".build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	tree := filepath.Join(scratch, "tree")
	for _, arguments := range t.builds {
		flags := []string{"-o", tree + "/bin/"}
		if t.stamp != "" {
			flags = append(flags, "-ldflags=-X "+t.stamp+"="+version)
		}
		if err := goCommand(ctx, module, nil, slices.Insert(slices.Clone(arguments), 1, flags...)...); err != nil {
			return err
		}
	}
	if err := os.Rename(tree, final); err != nil && !exists(final) {
		return err
	}
	return nil
}

// identify returns the module's version and a hash of all that decides about
// the result of a build.
func (t tool) identify(module string) (version, hash string, err error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, t.builds, t.stamp)
	var modfile []byte
	for _, name := range []string{"go.sum", "go.mod"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", "", err
		}
		sum.Write(content)
		modfile = content
	}
	line := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(t.module) + ` (v\S+)`)
	found := line.FindSubmatch(modfile)
	if found == nil {
		return "", "", fmt.Errorf("%s/go.mod does not require %s", module, t.module)
	}
	return string(found[1]), hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// BuildProxy builds the product from the rig's repository, static as it is shipped.
// Call it before the first Proxy; go's own cache makes it fast.
func (r *Rig) BuildProxy(ctx context.Context) error {
	if err := goCommand(ctx, r.Root, []string{"CGO_ENABLED=0"}, "build", "-trimpath", "-o", r.proxyBinary(), "./cmd/cri-proxy"); err != nil {
		return fmt.Errorf("build cri-proxy: %w", err)
	}
	return nil
}

func (r *Rig) proxyBinary() string { return filepath.Join(r.Dir, "programs", "cri-proxy") }

// Root finds the repository that the working directory lies in.
func Root() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := folder; ; folder = filepath.Dir(folder) {
		if exists(filepath.Join(folder, "test", "tools", "containerd", "go.mod")) {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("%s is not inside a checkout of cri-proxy", start)
		}
	}
}

// goCommand runs go in the folder, apart from any workspace and vendoring.
func goCommand(ctx context.Context, folder string, environment []string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir = folder
	cmd.Env = slices.Concat(os.Environ(), []string{"GOWORK=off", "GOFLAGS=-mod=readonly"}, environment)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", strings.Join(arguments, " "), folder, err, bytes.TrimSpace(output))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
