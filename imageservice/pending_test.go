package imageservice

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

func everyone(string) bool { return true }

func pod(n int) map[string]string { return map[string]string{"pod": strconv.Itoa(n)} }

// size counts what is really there.
func (p *pending) counted() (n int) {
	for _, asks := range p.byImage {
		for _, a := range asks {
			n += len(a.sandboxes)
		}
	}
	return n
}

// wantAwaited checks who is awaited for the image i, and that nothing else is kept.
func wantAwaited(t *testing.T, p *pending, want []string) {
	t.Helper()
	if got := p.sandboxes("i"); !slices.Equal(got, want) {
		t.Errorf("awaited %v, want %v", got, want)
	}
	if p.size != p.counted() {
		t.Errorf("counts %d, has %d", p.size, p.counted())
	}
	if _, ok := p.byImage["i"]; ok != (len(want) > 0) {
		t.Errorf("kept %v", p.byImage)
	}
}

// TestPending: who is awaited after which calls.
func TestPending(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(p *pending)
		want []string
	}{
		"nothing": {func(*pending) {}, nil},
		"one":     {func(p *pending) { p.add("i", ask{pod(1), []string{"a"}}, everyone) }, []string{"a"}},
		"another image": {func(p *pending) {
			p.add("j", ask{pod(1), []string{"a"}}, everyone)
			p.done("j", "b", pod(2))
		}, nil},
		"created": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a"}}, everyone)
			p.done("i", "a", pod(1))
		}, nil},
		"created with newer annotations": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a"}}, everyone)
			p.done("i", "a", pod(2))
		}, nil},
		"created without annotations": {func(p *pending) {
			p.add("i", ask{nil, []string{"a"}}, everyone)
			p.add("i", ask{nil, []string{"b"}}, everyone)
			p.done("i", "a", nil)
		}, []string{"b"}},
		"another was created": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a"}}, everyone)
			p.add("i", ask{pod(2), []string{"b"}}, everyone)
			p.done("i", "b", pod(2))
		}, []string{"a"}},
		"a guess ends with its pod": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a", "b", "c"}}, everyone)
			p.done("i", "b", pod(1))
		}, nil},
		"a guess without another's sandbox": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a", "b", "c"}}, everyone)
			p.done("i", "b", pod(2))
		}, []string{"a", "c"}},
		"a guess made certain": {func(p *pending) {
			p.add("i", ask{pod(1), []string{"a", "b", "c"}}, everyone)
			p.add("i", ask{pod(1), []string{"b"}}, everyone)
		}, []string{"b"}},
		"asked twice": {func(p *pending) {
			p.add("i", ask{nil, []string{"a"}}, everyone)
			p.add("i", ask{nil, []string{"a"}}, everyone)
		}, []string{"a"}},
		"for no sandbox": {func(p *pending) { p.add("i", ask{annotations: pod(1)}, everyone) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p pending
			c.do(&p)
			wantAwaited(t, &p, c.want)
		})
	}
}

// TestPendingIsBounded: what is never created does not pile up when its
// sandboxes are gone, and what is alive stays.
func TestPendingIsBounded(t *testing.T) {
	t.Parallel()
	var p pending
	const alive, pods = 40, 20_000
	living := func(id string) bool {
		var n int
		if _, err := fmt.Sscan(id, &n); err != nil {
			t.Fatal(err)
		}
		return n < alive
	}
	for n := range pods {
		p.add(fmt.Sprint("image-", n%7), ask{pod(n), []string{strconv.Itoa(n)}}, living)
		if limit := 2*alive + prunePending; p.size > limit {
			t.Fatalf("%d after %d pods, want at most %d", p.size, n, limit)
		}
	}
	kept := map[string]bool{}
	for image := range p.byImage {
		for _, id := range p.sandboxes(image) {
			kept[id] = true
		}
	}
	for n := range alive {
		if !kept[strconv.Itoa(n)] {
			t.Errorf("living sandbox %d was forgotten", n)
		}
	}
	if p.size != p.counted() {
		t.Errorf("counts %d, has %d", p.size, p.counted())
	}
	for n := range pods {
		p.done(fmt.Sprint("image-", n%7), strconv.Itoa(n), pod(n))
	}
	if p.size != 0 || len(p.byImage) != 0 {
		t.Errorf("%d are left: %v", p.size, slices.Collect(maps.Keys(p.byImage)))
	}
}

// TestPendingBesideTheIndex: marking, which looks sandboxes up to forget those
// that are gone, waiting, and learning of sandboxes do not block one another.
func TestPendingBesideTheIndex(t *testing.T) {
	t.Parallel()
	s := twoStores()
	live := routing.Sandbox{ID: "live", Backend: "beta", Ready: true, Annotations: pod(-1)}
	s.Index.PutSandbox(live)
	s.mark("app", live.Annotations, []routing.Sandbox{live})
	var wg sync.WaitGroup
	marked := make(chan struct{})
	meanwhile := func(do func()) {
		wg.Go(func() {
			for {
				select {
				case <-marked:
					return
				default:
					do()
				}
			}
		})
	}
	wg.Go(func() {
		defer close(marked)
		for n := range 20_000 {
			s.mark("app", pod(n), []routing.Sandbox{{ID: strconv.Itoa(n)}})
		}
	})
	meanwhile(func() { s.Index.PutSandbox(routing.Sandbox{ID: "other", Backend: "alpha", Ready: true}) })
	meanwhile(func() {
		if got := s.waiting("app"); len(got) != 1 || got[0].Name != "beta" {
			t.Errorf("waits for %v, want beta alone", got)
		}
	})
	wg.Wait()
	if s.pending.size > prunePending+2 {
		t.Errorf("%d are kept for sandboxes that are gone", s.pending.size)
	}
}

// twoStores is a service without connections.
func twoStores() *Service {
	stores := []*backend.Backend{{Name: "alpha"}, {Name: "beta"}}
	return &Service{
		memory:  &memory{},
		Options: Options{Index: routing.NewIndex(), Backends: &backend.Set{}},
		stores:  stores, storeOf: map[string]*backend.Backend{"alpha": stores[0], "beta": stores[1]},
	}
}

// TestMarkWithoutAPod: calls that tell of no pod, repeated for ever, leave
// nothing behind.
func TestMarkWithoutAPod(t *testing.T) {
	t.Parallel()
	s := twoStores()
	pods := []routing.Sandbox{{ID: "a", Ready: true, Backend: "alpha"}, {ID: "b", Ready: true, Backend: "beta"}}
	for _, p := range pods {
		s.Index.PutSandbox(p)
	}
	for range 100 {
		s.mark("app", nil, pods)
		slices.Reverse(pods)
		s.mark("app", nil, pods[:1])
	}
	if got := s.pending.counted(); got != 2 {
		t.Errorf("%d are kept, want one for each pod", got)
	}
	if got := s.waiting("other"); len(got) != 2 {
		t.Errorf("an image that nobody awaits is looked for in %d stores, want all", len(got))
	}
}
