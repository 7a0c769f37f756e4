package backend

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

const (
	// startTime is what a backend gets to be listed at start, where everybody
	// waits for it. A slower one is away until it is listed in its list_timeout.
	startTime = 3 * time.Second
	// retryTime is the pause before a backend that is away is asked again.
	retryTime = 500 * time.Millisecond
)

// Options are what a Set needs.
type Options struct {
	Config  *configs.Config
	Catalog *rawcri.Catalog
	Table   *routing.Table
	Index   *routing.Index
	Log     *logrus.Entry
	// Dial are further options of the connections, for tests.
	Dial []grpc.DialOption
}

// Set holds the backends of one configuration: the default handler's first, the
// others by name.
type Set struct {
	Options
	all    []*Backend
	byName map[string]*Backend
	pool   *pool

	replaced chan struct{} // Closed by Replace, after next was set.
	next     *Set
}

// New makes the backends of a valid configuration; nothing is dialled yet.
func New(o Options) (*Set, error) {
	s, err := makeSet(o, &pool{open: map[*upstream]bool{}}, nil)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// makeSet makes a set of those that known has, and new ones. With an error
// comes what there is of it.
func makeSet(o Options, p *pool, known func(name string, cfg configs.Backend) *Backend) (*Set, error) {
	s := &Set{Options: o, byName: map[string]*Backend{}, pool: p, replaced: make(chan struct{})}
	first := o.Table.Default().Backend
	names := slices.Sorted(maps.Keys(o.Config.Backends))
	slices.SortStableFunc(names, func(a, b string) int { return before(b == first) - before(a == first) })
	for _, name := range names {
		var b *Backend
		if known != nil {
			b = known(name, o.Config.Backends[name])
		}
		if b == nil {
			var err error
			if b, err = newBackend(name, o.Config.Backends[name], o.Dial); err != nil {
				return s, err
			}
			p.add(b.upstream)
		}
		s.all = append(s.all, b)
		s.byName[name] = b
	}
	return s, nil
}

func before(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// Close closes all connections, those of earlier sets included; calls in
// flight fail.
func (s *Set) Close() error { return s.pool.close() }

// All returns the backends, the default one first.
func (s *Set) All() []*Backend { return s.all }

// Default returns the backend of the default handler.
func (s *Set) Default() *Backend { return s.all[0] }

// Get returns the backend of that name, nil when there is none.
func (s *Set) Get(name string) *Backend { return s.byName[name] }

// Single reports whether there is one backend only, so that every call is its.
func (s *Set) Single() bool { return len(s.all) == 1 }

// AllUp reports whether every backend answers, so that what none of them knows
// does not exist.
func (s *Set) AllUp() bool {
	return !slices.ContainsFunc(s.all, func(b *Backend) bool { return !b.Up() })
}

// Start lists all backends side by side and returns when each has answered or
// had its time. One that did not answer is away until [Set.Run] reaches it.
func (s *Set) Start(ctx context.Context) {
	var wg sync.WaitGroup
	for _, b := range s.all {
		wg.Go(func() { s.refresh(ctx, b, startTime) })
	}
	wg.Wait()
}

// Run watches the backends until ctx ends, and those of the sets that replace
// this one: one whose connection is lost, or that was suspected, is listed anew as
// soon as it answers.
func (s *Set) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s = s.watchAll(ctx)
	}
	return nil
}

// watchAll watches until ctx ends or the set is replaced, and returns which set
// is the one to watch then.
func (s *Set) watchAll(ctx context.Context) *Set {
	watched, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, b := range s.all {
		wg.Go(func() { s.watch(watched, b) })
	}
	select {
	case <-ctx.Done():
		return s
	case <-s.replaced:
		return s.next
	}
}

func (s *Set) watch(ctx context.Context, b *Backend) {
	for ctx.Err() == nil {
		if b.Up() {
			b.waitLost(ctx)
		} else if !s.refresh(ctx, b, b.Config.ListTimeout.Duration) {
			pause(ctx, retryTime)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Usable returns why the backend can take no new sandbox now, nil if it can.
// With one backend only it is for the runtime to say.
func (s *Set) Usable(b *Backend) error {
	if s.Single() {
		return nil
	}
	state, standard := b.State(), s.Default().State()
	if !state.Up {
		return b.Away()
	}
	if state.CgroupDriver != "" && standard.CgroupDriver != "" && state.CgroupDriver != standard.CgroupDriver {
		return status.Errorf(codes.FailedPrecondition,
			"backend %q uses the cgroup driver %s, the default backend %q uses %s: the kubelet has one hierarchy, configure both alike",
			b.Name, state.CgroupDriver, s.Default().Name, standard.CgroupDriver)
	}
	return nil
}
