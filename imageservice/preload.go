package imageservice

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

const (
	// firstRetry is the pause after the first failure to preload an image; it
	// doubles with each further one, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// recheck is how often it is looked whether a preloaded image is still there.
	// The kubelet leaves it alone, since it is pinned, but people need not.
	recheck = 5 * time.Minute
	// returnCheck is how often it is looked whether the store has come back.
	returnCheck = time.Second
)

// The values of [Preload].State.
const (
	PreloadPulling = "pulling"
	PreloadPresent = "present"
	PreloadFailed  = "failed" // It is tried again at NextTry.
)

// Preload is what became of an image that a handler's configuration wants in
// its store from the start.
type Preload struct {
	Image   string    `json:"image"` // As the configuration has it.
	State   string    `json:"state"`
	Reason  string    `json:"reason,omitempty"` // Why it failed the last time.
	NextTry time.Time `json:"nextTry,omitzero"` // When it is tried again.
}

// preload keeps one image in one store.
type preload struct {
	handler routing.Handler
	name    string // The image's normal form.
	store   *backend.Backend
	log     *logrus.Entry
	service atomic.Pointer[Service] // The newest.

	present func(context.Context) (bool, error)
	pull    func(context.Context) error
	// storeUp is when the store came back last; zero while it is away.
	storeUp func() time.Time

	mu    sync.Mutex
	state Preload
}

// newPreloads returns what the handlers of the configuration preload, those of
// the configuration before among them. They are pulled by the handler's rules and
// with its credentials, but for pull_policy: with "never", this is one of the ways
// for images to be there.
func (s *Service) newPreloads(before []*preload) []*preload {
	var all []*preload
	for _, handler := range s.Table.Names() {
		h, err := s.Table.Resolve(handler)
		if err != nil {
			continue // The table's own names resolve.
		}
		for _, image := range s.Backends.Config.Handlers[handler].Images.Preload {
			all = append(all, s.newPreload(h, image, before))
		}
	}
	return all
}

func (s *Service) newPreload(h routing.Handler, image string, before []*preload) *preload {
	for _, p := range before { // One that failed is tried again at once: what was wrong may be mended.
		if now := p.current(); p.handler == h && p.store == s.storeOf[h.Backend] && now.Image == image && now.State != PreloadFailed {
			return p
		}
	}
	p := &preload{
		handler: h, name: routing.Reference(image), store: s.storeOf[h.Backend],
		log:   s.Log.WithFields(logrus.Fields{"handler": h.Name, "image": image}),
		state: Preload{Image: image, State: PreloadPulling},
	}
	p.service.Store(s)
	p.present = func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, p.store.Config.ListTimeout.Duration)
		defer cancel()
		id, err := p.service.Load().presentFor(ctx, h, image)
		return id != "", err
	}
	p.pull = func(ctx context.Context) error {
		_, err := p.service.Load().Pull(ctx, h.Name, image)
		return err
	}
	p.storeUp = func() time.Time { return upSince(p.store) }
	return p
}

func upSince(b *backend.Backend) time.Time {
	if state := b.State(); state.Up {
		return state.Since
	}
	return time.Time{}
}

// Replace hands over to next, which Next has returned: its preloaded images are
// kept in their stores from now on.
func (s *Service) Replace(next *Service) {
	for _, p := range next.preloads {
		p.service.Store(next)
	}
	next.expectPulls()
	s.next = next
	close(s.replaced)
}

// Run keeps the preloaded images in their stores until ctx ends, and those of the
// services that replace this one, all that it started having ended when it
// returns. Images of one handler are pulled side by side, as many as its
// max_parallel_pulls allows.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*preload]context.CancelFunc{}
	for {
		for p, stop := range running {
			if !slices.Contains(s.preloads, p) {
				stop()
				delete(running, p)
			}
		}
		for _, p := range s.preloads {
			if running[p] == nil {
				kept, stop := context.WithCancel(ctx)
				running[p] = stop
				wg.Go(func() { p.keep(kept) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.replaced:
			s = s.next
		}
	}
}

// Preloads returns what became of the images that a handler preloads, in the
// configuration's order.
func (s *Service) Preloads(handler string) []Preload {
	var found []Preload
	for _, p := range s.preloads {
		if p.handler.Name == handler {
			found = append(found, p.current())
		}
	}
	return found
}

// keep pulls the image until it is there, and again when it is found to be gone.
func (p *preload) keep(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		up := p.storeUp()
		err := p.ensure(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := recheck
		if err == nil {
			failures = 0
			p.succeeded()
		} else {
			failures++
			wait = retryAfter(failures)
			p.failed(err, wait)
		}
		p.pause(ctx, wait, up)
	}
}

// ensure pulls the image unless it is there. A tag that is there is not pulled
// again: the node must start without its registry.
func (p *preload) ensure(ctx context.Context) error {
	there, err := p.present(ctx)
	if err != nil || there {
		return err
	}
	p.set(func(s *Preload) { s.State, s.NextTry = PreloadPulling, time.Time{} })
	return p.pull(ctx)
}

// retryAfter is the pause after so many failures in a row. Half of it is left to
// chance, or all nodes would ask their registry at once when it is back.
func retryAfter(failures int) time.Duration {
	pause := lastRetry
	if doublings := failures - 1; doublings < 9 { // 2⁹ s is more than the limit.
		pause = min(firstRetry<<doublings, lastRetry)
	}
	return pause/2 + rand.N(pause/2+1) //nolint:gosec // Nobody gains by guessing it.
}

// pause waits for d, but not longer than until a store that was not up since
// then is back.
func (p *preload) pause(ctx context.Context, d time.Duration, up time.Time) {
	due, look := time.NewTimer(d), time.NewTicker(returnCheck)
	defer due.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-look.C:
			if now := p.storeUp(); !now.IsZero() && !now.Equal(up) {
				return
			}
		}
	}
}

func (p *preload) succeeded() {
	if before := p.set(func(s *Preload) { *s = Preload{Image: s.Image, State: PreloadPresent} }); before.State != PreloadPresent {
		p.log.Info("the image to preload is there")
	}
}

// failed says so once for each reason: it is tried again for as long as it takes.
func (p *preload) failed(err error, wait time.Duration) {
	reason := status.Convert(err).Message()
	before := p.set(func(s *Preload) {
		s.State, s.Reason, s.NextTry = PreloadFailed, reason, time.Now().Add(wait)
	})
	if before.Reason != reason {
		p.log.WithField(logrus.ErrorKey, reason).Warn("the image to preload cannot be pulled: it is tried again")
	}
}

func (p *preload) set(change func(*Preload)) (before Preload) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before = p.state
	change(&p.state)
	return before
}

func (p *preload) current() Preload {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}
