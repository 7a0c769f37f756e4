package imageservice

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
)

// preloadTest is one preloaded image in a store that the test makes up.
type preloadTest struct {
	*preload
	began  time.Time
	logged *logrustest.Hook

	mu    sync.Mutex
	store fakeStore
}

type fakeStore struct {
	there   bool
	up      time.Time
	failure error         // Of a pull.
	takes   time.Duration // A pull.
	pulls   []time.Duration
}

// startPreload keeps the image until the test's bubble ends.
func startPreload(t *testing.T, store fakeStore) *preloadTest {
	t.Helper()
	logger, hook := logrustest.NewNullLogger()
	p := &preloadTest{began: time.Now(), store: store, logged: hook}
	p.preload = &preload{
		log: logrus.NewEntry(logger), state: Preload{Image: "app", State: PreloadPulling},
		present: func(context.Context) (bool, error) { return p.set(nil).there, nil },
		pull:    p.pullOnce,
		storeUp: func() time.Time { return p.set(nil).up },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.keep(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// set changes the store, unless change is nil, and returns how it is.
func (p *preloadTest) set(change func(*fakeStore)) fakeStore {
	p.mu.Lock()
	defer p.mu.Unlock()
	if change != nil {
		change(&p.store)
	}
	return p.store
}

func (p *preloadTest) pullOnce(ctx context.Context) error {
	store := p.set(func(s *fakeStore) { s.pulls = append(s.pulls, time.Since(p.began)) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(store.takes):
	}
	return p.set(func(s *fakeStore) { s.there = s.failure == nil }).failure
}

// after lets time pass until the moment, counted from the start, and returns
// when there were pulls.
func (p *preloadTest) after(d time.Duration) (pulls []time.Duration) {
	<-time.After(time.Until(p.began.Add(d)))
	synctest.Wait()
	return p.set(nil).pulls
}

// TestPreloadRetries: the pauses double from a second to five minutes, at least
// half of each being kept, for as long as it takes.
func TestPreloadRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPreload(t, fakeStore{up: time.Now(), failure: errors.New("registry: 503")})
		pulls := p.after(time.Hour)
		if len(pulls) < 18 || len(pulls) > 40 {
			t.Fatalf("%d pulls in an hour", len(pulls))
		}
		want := firstRetry
		for i, at := range pulls[1:] {
			if pause := at - pulls[i]; pause < want/2 || pause > want {
				t.Errorf("pause %d is %s, want between %s and %s", i, pause, want/2, want)
			}
			want = min(2*want, lastRetry)
		}
		state := p.current()
		if state.State != PreloadFailed || state.Reason != "registry: 503" || !state.NextTry.After(time.Now()) {
			t.Errorf("state %+v", state)
		}
		if n := len(p.logged.AllEntries()); n != 1 {
			t.Errorf("%d lines logged for one reason, want 1", n)
		}
		p.set(func(s *fakeStore) { s.failure = nil })
		p.after(time.Hour + lastRetry)
		if diff := cmp.Diff(Preload{Image: "app", State: PreloadPresent}, p.current()); diff != "" {
			t.Errorf("once it can be pulled (-want +got):\n%s", diff)
		}
	})
}

// TestPreloadSeenWhilePulling: what status shows during the pull, and that the
// end of the process ends it.
func TestPreloadSeenWhilePulling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPreload(t, fakeStore{up: time.Now(), takes: time.Hour})
		p.after(time.Minute)
		if diff := cmp.Diff(Preload{Image: "app", State: PreloadPulling}, p.current()); diff != "" {
			t.Errorf("state (-want +got):\n%s", diff)
		}
	})
}

// TestPreloadLooksAgain: an image that is there is not pulled; one that somebody
// removed is, and at once when the store was away meanwhile.
func TestPreloadLooksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPreload(t, fakeStore{up: time.Now(), there: true})
		if pulls := p.after(recheck - time.Second); len(pulls) != 0 || p.current().State != PreloadPresent {
			t.Fatalf("pulled at %v, state %+v", pulls, p.current())
		}
		p.set(func(s *fakeStore) { s.there = false })
		if pulls := p.after(recheck); len(pulls) != 1 {
			t.Fatalf("pulls of an image that was removed: %v, want one at %s", pulls, recheck)
		}
		p.set(func(s *fakeStore) { s.there, s.up = false, time.Time{} }) // Away, its disk gone.
		if pulls := p.after(recheck + time.Minute); len(pulls) != 1 {
			t.Fatalf("pulled at %v while the store was away", pulls)
		}
		p.set(func(s *fakeStore) { s.up = time.Now() })
		if pulls := p.after(recheck + time.Minute + returnCheck); len(pulls) != 2 {
			t.Errorf("pulled at %v, want one more when the store is back", pulls)
		}
	})
}

// TestPreloadDoesNotWaitForTheRetry: a store that was away is used as soon as
// it is back, however long the next pause is.
func TestPreloadDoesNotWaitForTheRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := startPreload(t, fakeStore{failure: errors.New("away")})
		before := len(p.after(time.Hour))
		p.set(func(s *fakeStore) { s.failure, s.up = nil, time.Now() })
		if more := len(p.after(time.Hour+returnCheck)) - before; more != 1 || p.current().State != PreloadPresent {
			t.Errorf("%d further pulls, want 1; state %+v", more, p.current())
		}
	})
}

// TestPin: which images of which store are shown as pinned.
func TestPin(t *testing.T) {
	t.Parallel()
	alpha, beta := &backend.Backend{Name: "alpha"}, &backend.Backend{Name: "beta"}
	const id = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
	s := &Service{memory: &memory{}, preloads: []*preload{
		{store: alpha, name: "docker.io/library/app:latest"},
		{store: alpha, name: "r.example/tool@" + id},
		{store: alpha, name: id},
	}}
	for _, c := range []struct {
		name  string
		store *backend.Backend
		image *runtimeapi.Image
		want  bool
	}{
		{"by a tag", alpha, &runtimeapi.Image{RepoTags: []string{"x/y:1", "docker.io/library/app:latest"}}, true},
		{"by a digest", alpha, &runtimeapi.Image{RepoDigests: []string{"r.example/tool@" + id}}, true},
		{"by its id", alpha, &runtimeapi.Image{Id: id}, true},
		{"another tag", alpha, &runtimeapi.Image{RepoTags: []string{"docker.io/library/app:2"}}, false},
		{"another store", beta, &runtimeapi.Image{RepoTags: []string{"docker.io/library/app:latest"}}, false},
		{"pinned by the runtime", beta, &runtimeapi.Image{Pinned: true}, true},
	} {
		if s.pin(c.store, c.image, nil); c.image.GetPinned() != c.want {
			t.Errorf("%s: pinned is %t, want %t", c.name, c.image.GetPinned(), c.want)
		}
	}
	if !s.pins(alpha) || s.pins(beta) {
		t.Errorf("alpha has pins: %t, beta: %t", s.pins(alpha), s.pins(beta))
	}
}
