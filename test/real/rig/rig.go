package rig

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// longestFolder keeps the longest socket below a rig (a shim's: 20 bytes for
// the folders and 64 for the name) under the 108 bytes that Linux allows.
const longestFolder = 22

// prefix begins the names of a rig's folder, bridges and cgroup. A number that
// is the same in all of them follows.
const prefix = "rig"

const closeWithin = 2 * time.Minute

// Options is what New needs.
type Options struct {
	Root  string // of the repository, for the sources of the images
	Parts Parts
}

// Rig is one temporary folder with all that runs in it.
type Rig struct {
	Options
	Dir string // absolute and short

	images *Images
	lock   *os.File

	mu         sync.Mutex
	containerd []*Containerd
	proxies    []*Proxy
	clusters   []*Cluster
	registries []*registry // beside that of images
	prometheus []*Prometheus
	fronts     []*Front
	secrets    []secret
}

// New makes the folder and starts the registry with the images in it.
func New(ctx context.Context, options Options) (*Rig, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a real node needs root: run this as root")
	}
	if err := Sweep(ctx); err != nil {
		return nil, fmt.Errorf("clean up after a rig that was killed: %w", err)
	}
	r, err := newFolder(options)
	if err != nil {
		return nil, err
	}
	if r.images, err = newImages(ctx, r); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

// newFolder makes the folder that everything lies in.
func newFolder(options Options) (*Rig, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	r := &Rig{Options: options, Dir: dir}
	if len(dir) > longestFolder {
		return nil, errors.Join(fmt.Errorf("%s is too long for the sockets below it; set TMPDIR to a shorter folder", dir), os.Remove(dir))
	}
	// The first process of a pod with a user namespace must be able to pass.
	return r, errors.Join(os.Chmod(dir, 0o755), r.hold())
}

// Close ends all that the rig started and removes all that it left. A cancelled
// ctx does not keep it from that; only its values are used.
func (r *Rig) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	var problems []error
	for _, cluster := range r.clusters {
		problems = append(problems, cluster.closeKubelet())
	}
	for _, proxy := range r.proxies {
		problems = append(problems, proxy.Stop())
	}
	for _, prometheus := range r.prometheus {
		problems = append(problems, prometheus.process.stop())
	}
	for _, cluster := range r.clusters { // An API server waits for those who watch it.
		problems = append(problems, cluster.close())
	}
	for _, containerd := range r.containerd {
		problems = append(problems, containerd.close(ctx))
	}
	for _, front := range r.fronts {
		problems = append(problems, front.close())
	}
	for _, registry := range r.registries {
		problems = append(problems, registry.process.stop())
	}
	if r.images != nil {
		problems = append(problems, r.images.close())
	}
	return errors.Join(errors.Join(problems...), r.clean(ctx), r.lock.Close())
}

// Logs writes the end of every log in the rig, for the reader of a failure.
func (r *Rig) Logs(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, containerd := range r.containerd {
		fmt.Fprintln(w, containerd.process.tail())
	}
	for _, proxy := range r.proxies {
		fmt.Fprintln(w, proxy.process.tail())
	}
	for _, cluster := range r.clusters {
		cluster.logs(w)
	}
}

// id is the part of the folder's name that no other rig on this machine has. It
// stands in the names that are not files: bridges and cgroups.
func (r *Rig) id() string {
	return filepath.Base(r.Dir)[len(prefix):]
}

// CgroupParent is the cgroup that the rig's pods belong to.
func (r *Rig) CgroupParent() string {
	return "/" + prefix + r.id()
}

// number spreads the rigs of one machine over the subnets.
func (r *Rig) number() uint32 {
	hash := fnv.New32a()
	hash.Write([]byte(r.id()))
	return hash.Sum32()
}
