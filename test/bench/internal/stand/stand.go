// Package stand puts up one node of a given size several times over: a fake
// runtime, two of half the size, and before them every contestant, each in a
// process of its own.
//
// All contestants of a stand have the same runtime behind them, and so the same
// answers; only the one with two backends has the two halves. Close ends all of
// it and removes its folder.
package stand

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/process"
)

// Names of the contestants.
const (
	Direct  = "direct"
	Relay   = "relay"
	Raw     = "raw"
	One     = "one backend"
	Two     = "two backends"
	Renamed = "renamed"
	Hooked  = "one hook" // It only starts pods.
)

// Names returns the contestants in the order of the tables; [Hooked] has its own.
func Names() []string { return []string{Direct, Relay, Raw, One, Two, Renamed} }

const (
	containersPerPod = 5
	readyWithin      = 30 * time.Second
	runc             = "runc"     // the handler of the whole runtime and of the first half
	isolated         = "isolated" // that of the second half
	quick            = "quick"    // another name for runc
)

// Options say what a stand is made of.
type Options struct {
	Self       string // path of this program, which also plays the roles
	Proxy      string // path of cri-proxy
	Containers int    // on the node; a multiple of twice the containers of a pod
}

// Contestant is one way from a kubelet to its runtime.
type Contestant struct {
	Name    string
	Process *process.Process // nil for direct
	Client  *load.Client

	state string // the file of its state; nobody but cri-proxy has one
}

// Stand is one node, ready to be asked.
type Stand struct {
	Options
	Contestants []*Contestant // as Names, then Hooked

	dir       string
	processes []*process.Process // in the order of their start
}

// New starts everything and returns when every contestant has listed the node.
func New(ctx context.Context, o Options) (_ *Stand, err error) {
	dir, err := os.MkdirTemp("", "cb")
	if err != nil {
		return nil, err
	}
	s := &Stand{Options: o, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := s.runtimes(ctx); err != nil {
		return nil, err
	}
	return s, s.contestants(ctx)
}

// Doing returns those that do a workload.
func (s *Stand) Doing(workload string) []*Contestant {
	if workload == load.PodStart {
		return s.Contestants
	}
	return slices.DeleteFunc(slices.Clone(s.Contestants), func(c *Contestant) bool { return c.Name == Hooked })
}

// Close ends the contestants, then the runtimes.
func (s *Stand) Close() error {
	var errs []error
	for _, c := range s.Contestants {
		errs = append(errs, c.Client.Close())
	}
	for _, p := range slices.Backward(s.processes) {
		errs = append(errs, p.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// runtimes starts the fakes and waits until they are full.
func (s *Stand) runtimes(ctx context.Context) error {
	pods := s.Containers / containersPerPod
	for _, fake := range []struct {
		name, handler string
		pods          int
	}{{"whole", runc, pods}, {"half1", runc, pods / 2}, {"half2", isolated, pods - pods/2}} {
		options := load.Options{Name: fake.name, Socket: s.socket(fake.name), Handlers: []string{fake.handler}}
		p, err := s.start(ctx, fake.name, s.Self, "fake", "-listen", options.Socket, "-handler", fake.handler,
			"-pods", strconv.Itoa(fake.pods), "-containers", strconv.Itoa(containersPerPod))
		if err != nil {
			return err
		}
		client, err := await(ctx, p, options, fake.pods*containersPerPod)
		if err != nil {
			return err
		}
		if err := client.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stand) contestants(ctx context.Context) error {
	whole := s.socket("whole")
	for _, c := range []struct {
		name     string
		socket   string
		handlers []string
		start    func(ctx context.Context, socket string) (*process.Process, error)
	}{
		{Direct, whole, []string{runc}, nil},
		{Relay, s.socket("relay"), []string{runc}, s.role("relay", whole)},
		{Raw, s.socket("raw"), []string{runc}, s.role("raw", whole)},
		{One, s.socket("one"), []string{runc}, s.proxy("one", runc, s.one())},
		{Two, s.socket("two"), []string{runc, isolated}, s.proxy("two", runc, s.two())},
		{Renamed, s.socket("new"), []string{quick}, s.proxy("new", quick, s.renamed())},
		{Hooked, s.socket("hooked"), []string{runc}, s.proxy("hooked", runc, s.hooked())},
	} {
		added := &Contestant{Name: c.name, state: stateFile(c.socket)}
		if c.start != nil {
			var err error
			if added.Process, err = c.start(ctx, c.socket); err != nil {
				return err
			}
		}
		client, err := await(ctx, added.Process, load.Options{Name: clientName(c.name), Socket: c.socket, Handlers: c.handlers}, s.Containers)
		if err != nil {
			return err
		}
		added.Client = client
		s.Contestants = append(s.Contestants, added)
	}
	return nil
}

// role starts this program in the role of another.
func (s *Stand) role(name, upstream string) func(context.Context, string) (*process.Process, error) {
	return func(ctx context.Context, socket string) (*process.Process, error) {
		return s.start(ctx, name, s.Self, name, "-listen", socket, "-upstream", upstream)
	}
}

// start starts a process that ends with the stand.
func (s *Stand) start(ctx context.Context, name, path string, args ...string) (*process.Process, error) {
	p, err := process.Start(ctx, process.Options{Name: name, Path: path, Args: args, Log: filepath.Join(s.dir, name+".log")})
	if err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	return p, nil
}

func (s *Stand) socket(name string) string { return filepath.Join(s.dir, name+".sock") }
