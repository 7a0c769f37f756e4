package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// pool is what the sets that follow one another have opened and not closed yet.
type pool struct {
	mu   sync.Mutex
	open map[*upstream]bool
}

func (p *pool) add(u *upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[u] = true
}

// drop closes one, once.
func (p *pool) drop(u *upstream) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open[u] {
		return nil
	}
	delete(p.open, u)
	return u.close()
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for u := range p.open {
		errs = append(errs, u.close())
	}
	clear(p.open)
	return errors.Join(errs...)
}

// Next returns the set of another configuration. A backend whose sockets are
// the same is the same one; the others are new, and nothing is dialled yet. This
// set stays as it is until [Set.Replace]; a next one that is not wanted after all
// is to be given back by [Set.Discard].
func (s *Set) Next(cfg *configs.Config, table *routing.Table) (*Set, error) {
	o := s.Options
	o.Config, o.Table = cfg, table
	next, err := makeSet(o, s.pool, s.known)
	if err != nil {
		return nil, errors.Join(err, s.Discard(next))
	}
	return next, nil
}

// known returns the backend of this set as another configuration has it; nil
// when it is another one there.
func (s *Set) known(name string, cfg configs.Backend) *Backend {
	b := s.byName[name]
	switch {
	case b == nil, b.Config.Endpoint != cfg.Endpoint, b.Config.Images() != cfg.Images():
		return nil
	case b.Config == cfg:
		return b
	default:
		return &Backend{Name: name, Config: cfg, upstream: b.upstream}
	}
}

// Missing returns the backends of this set that another one does not have.
func (s *Set) Missing(in *Set) []*Backend {
	return slices.DeleteFunc(slices.Clone(s.all), func(b *Backend) bool {
		other := in.byName[b.Name]
		return other != nil && other.upstream == b.upstream
	})
}

// Reach lists the backends that are in this set and not yet in the one before,
// side by side, so that their ids are known before the first call. It returns why
// some did not answer, by name. Of one that was alone before, and of which nobody
// kept a list, the lists are taken too, for when it is away.
func (s *Set) Reach(ctx context.Context, before *Set) map[string]error {
	added := s.Missing(before)
	var wg sync.WaitGroup
	for _, b := range added {
		wg.Go(func() { s.refresh(ctx, b, startTime) })
	}
	wg.Wait()
	failed := map[string]error{}
	for _, b := range added {
		if state := b.State(); !state.Up {
			failed[b.Name] = state.Err
		}
	}
	if b := s.joined(before); b != nil && len(failed) == 0 {
		s.takeLists(ctx, b)
	}
	return failed
}

// joined returns the backend that was alone before and is one of several now; nil
// when there is none.
func (s *Set) joined(before *Set) *Backend {
	b := s.byName[before.Default().Name]
	if !before.Single() || s.Single() || b == nil || b.upstream != before.Default().upstream {
		return nil
	}
	return b
}

// Replace hands over to next, which Next has returned: it is watched from now on.
func (s *Set) Replace(next *Set) {
	for _, b := range next.all {
		b.setTTL()
	}
	s.next = next
	close(s.replaced)
}

// Discard gives back what a next set has and this one has not, and forgets it.
func (s *Set) Discard(next *Set) error {
	var errs []error
	for _, b := range next.Missing(s) {
		s.Index.Forget(b.Name)
		errs = append(errs, s.pool.drop(b.upstream))
	}
	return errors.Join(errs...)
}

// Drop closes backends that no call uses any more.
func (s *Set) Drop(gone []*Backend) error {
	var errs []error
	for _, b := range gone {
		errs = append(errs, s.pool.drop(b.upstream))
	}
	return errors.Join(errs...)
}

// BeginCreate is called before a pod sandbox is made, and followed by EndCreate.
// Its error says that the backend takes none any more.
func (b *Backend) BeginCreate() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.retired {
		return status.Errorf(codes.Unavailable, "backend %q is being taken out of the configuration", b.Name)
	}
	b.creating++
	return nil
}

// EndCreate is called when the answer to a create was learnt.
func (b *Backend) EndCreate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.creating--
}

// Creating returns how many pod sandboxes are being made.
func (b *Backend) Creating() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.creating
}

// Retire refuses further pod sandboxes and returns how many are being made.
func (b *Backend) Retire() (creating int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retired = true
	return b.creating
}

// Unretire takes that back.
func (b *Backend) Unretire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retired = false
}

// LearnPods asks a backend that is up for all of its pod sandboxes, and learns
// those that are not known, the answers to their creates having been lost, and
// the handler of those that had none so far.
func (s *Set) LearnPods(ctx context.Context, b *Backend) error {
	if !b.Up() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	reading := s.Index.Rebuild(b.Name)
	var list runtimeapi.ListPodSandboxResponse
	if err := b.List(limited, "ListPodSandbox", &list); err != nil {
		reading.Abort()
		return fmt.Errorf("ask backend %q for its pods: %w", b.Name, err)
	}
	var unknown []routing.Sandbox
	for _, p := range list.GetItems() {
		record := s.sandboxRecord(b, p)
		if known, ok := s.Index.Sandbox(record.ID); !ok {
			unknown = append(unknown, record)
		} else if known.Handler == "" {
			s.Index.SetHandler(record.ID, record.Handler)
		}
	}
	for _, c := range reading.Learn(unknown, nil) {
		s.clash(c.ID, c.Before, b.Name)
	}
	return nil
}
