package routing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/configs"
)

func table(t *testing.T, handlers string) *Table {
	t.Helper()
	cfg, err := configs.Parse("test.toml", []byte(`version = 1
default_handler = "runc"
[backends.a]
endpoint = "/run/a"
[backends.b]
endpoint = "/run/b"
`+handlers))
	if err != nil {
		t.Fatal(err)
	}
	return NewTable(cfg)
}

func TestTable(t *testing.T) {
	t.Parallel()
	x := table(t, `
[handlers.runc]
backend = "a"
[handlers.fast]
backend = "a"
runtime = "runc"
[handlers.plain]
backend = "b"
runtime = ""
[handlers.kata]
backend = "b"
runtime = "kata-qemu"
`)
	for name, want := range map[string]Handler{
		"":      {Name: "runc", Backend: "a", Runtime: "runc", Shared: true},
		"runc":  {Name: "runc", Backend: "a", Runtime: "runc", Shared: true},
		"fast":  {Name: "fast", Backend: "a", Runtime: "runc", Shared: true},
		"plain": {Name: "plain", Backend: "b"},
		"kata":  {Name: "kata", Backend: "b", Runtime: "kata-qemu"},
	} {
		if got, err := x.Resolve(name); err != nil || got != want {
			t.Errorf("Resolve(%q) = %+v, %v, want %+v", name, got, err, want)
		}
	}
	// One that drains is told apart by its pins, not by a name that means another.
	cfg := configs.Config{DefaultHandler: "new", Handlers: map[string]configs.Handler{
		"new": {Backend: "a", Runtime: new("runc")}, "old": {Backend: "a", Runtime: new("runc")}, "alone": {Backend: "a"},
	}}
	drained := NewTable(&cfg, "old", "alone")
	for name, want := range map[string]bool{"new": false, "old": true, "alone": false} {
		if h, err := drained.Find(name); err != nil || h.Shared != want || h.Draining != (name != "new") {
			t.Errorf("%+v, %v, want it shared: %t", h, err, want)
		}
	}
	if got, _ := drained.Public("a", []byte("runc")); got != "new" {
		t.Errorf("the runtime means %s", got)
	}
	_, err := x.Resolve("gvisor")
	var unknown *UnknownHandlerError
	if !errors.As(err, &unknown) || err.Error() != `handler "gvisor" is not configured; known: fast, kata, plain, runc` {
		t.Errorf("got %v", err)
	}
	for _, tt := range []struct{ backend, runtime, want string }{
		{"a", "runc", "fast"}, {"b", "", "plain"}, {"b", "kata-qemu", "kata"}, {"a", "", ""}, {"b", "runc", ""}, {"c", "runc", ""},
	} {
		if got, ok := x.Public(tt.backend, []byte(tt.runtime)); got != tt.want || ok != (tt.want != "") {
			t.Errorf("Public(%q, %q) = %q, %v, want %q", tt.backend, tt.runtime, got, ok, tt.want)
		}
	}
	if !x.Renames("a") || !x.Renames("b") || table(t, "[handlers.runc]\nbackend = \"a\"").Renames("a") {
		t.Error("Renames: want true where a name differs or is shared, else false")
	}
}

func TestIndexRebuild(t *testing.T) {
	t.Parallel()
	pod := func(uid string) Pod { return Pod{UID: uid} }
	x := NewIndex()
	x.PutSandbox(Sandbox{ID: "old", Backend: "a", Pod: pod("old"), Ready: true})
	x.Pin(pod("old"), "h")
	x.PutContainer(Container{ID: "old-c", Backend: "a", Sandbox: "old"})
	x.PutSandbox(Sandbox{ID: "kept", Backend: "a", Pod: pod("kept"), Ready: true})
	x.Pin(pod("kept"), "h")
	x.PutContainer(Container{ID: "kept-c", Backend: "a", Sandbox: "kept", Image: "i"})
	x.PutSandbox(Sandbox{ID: "other", Backend: "b", Ready: true})

	r := x.Rebuild("a")
	x.PutSandbox(Sandbox{ID: "new", Backend: "a", Pod: pod("new"), Ready: true}) // Created while the list was on its way.
	x.RemoveSandbox("gone")
	x.RemoveContainer("gone-c")
	clashes := r.Finish(
		[]Sandbox{{ID: "kept", Backend: "a", Pod: pod("kept"), Ready: true}, {ID: "gone", Backend: "a"}, {ID: "other", Backend: "a"}},
		[]Container{{ID: "kept-c", Backend: "a", Sandbox: "kept", Image: "i"}, {ID: "gone-c", Backend: "a"}, {ID: "in-gone", Backend: "a", Sandbox: "gone"}},
	)
	if !slices.Equal(clashes, []Clash{{"other", "b"}}) {
		t.Errorf("clashes: %v", clashes)
	}
	for id, want := range map[string]bool{"old": false, "kept": true, "new": true, "gone": false, "other": true} {
		if _, ok := x.SandboxOwner([]byte(id)); ok != want {
			t.Errorf("sandbox %s known: %v, want %v", id, ok, want)
		}
	}
	for id, want := range map[string]bool{"old-c": false, "kept-c": true, "gone-c": false, "in-gone": false} {
		if _, ok := x.ContainerOwner([]byte(id)); ok != want {
			t.Errorf("container %s known: %v, want %v", id, ok, want)
		}
	}
	if s, _ := x.Sandbox("kept"); !slices.Equal(s.Images, []string{"i"}) {
		t.Errorf("images of the kept sandbox: %v", s.Images)
	}
	if _, ok := x.Pinned(pod("old")); ok {
		t.Error("the pin of a pod that is gone stays")
	}
	if _, ok := x.Pinned(pod("kept")); !ok {
		t.Error("the pin of a pod that is there is gone")
	}
	if len(x.removed) != 0 {
		t.Errorf("removals are kept after the rebuild: %v", x.removed)
	}
}

func TestIndexShortIDs(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	for _, id := range []string{"abc1", "abc2", "b1"} {
		x.PutSandbox(Sandbox{ID: id, Backend: "a"})
		x.PutContainer(Container{ID: id, Backend: "a"})
	}
	for short, want := range map[string]string{"abc1": "abc1", "abc": "abc", "b": "b1", "z": "z"} {
		if got := x.FullSandboxID("a", short); got != want {
			t.Errorf("FullSandboxID(%q) = %q, want %q", short, got, want)
		}
		if got := x.FullContainerID("a", short); got != want {
			t.Errorf("FullContainerID(%q) = %q, want %q", short, got, want)
		}
	}
}

func TestPodKey(t *testing.T) {
	t.Parallel()
	for _, p := range []Pod{{UID: "u"}, {"default", "web-0", "8f5c-1", 4294967295}} {
		if got, ok := ParsePod(p.Key()); !ok || got != p {
			t.Errorf("%+v comes back as %+v, %v", p, got, ok)
		}
	}
	for _, key := range []string{"", "u", "n/p/u/x", "n/p/u/-1", "n/p/u/4294967296", "u/0", "n/p/u/0/1"} {
		if got, ok := ParsePod(key); ok {
			t.Errorf("%q is read as %+v", key, got)
		}
	}
}

// TestIndexOverlappingRebuilds: what is remembered for lists on their way is
// forgotten although there is always one.
func TestIndexOverlappingRebuilds(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	a := x.Rebuild("a")
	for i := range 1000 {
		b := x.Rebuild("b")
		a.Abort()
		a = x.Rebuild("a")
		b.Abort()
		x.RemoveContainer(strconv.Itoa(i))
	}
	if n := len(x.removed); n > 2 {
		t.Errorf("%d removals are remembered", n)
	}
}

// TestIndexLearnsDuringRebuild: a stop, annotations and removals that a list on
// its way has not seen.
func TestIndexLearnsDuringRebuild(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	listed := Sandbox{ID: "s", Backend: "a", Ready: true, Pod: Pod{UID: "u"}}
	x.PutSandbox(listed)
	x.PutSandbox(Sandbox{ID: "gone", Backend: "a"})
	rebuild, question := x.Rebuild("a"), x.Rebuild("a")
	x.SetNotReady("s")
	x.SetAnnotations("s", map[string]string{"new": "1"})
	x.RemoveSandbox("gone")
	rebuild.Finish([]Sandbox{listed}, nil)
	question.Learn([]Sandbox{listed, {ID: "gone", Backend: "a"}}, []Container{{ID: "c", Backend: "a", Sandbox: "gone"}})
	if s, _ := x.Sandbox("s"); s.Ready || s.Annotations["new"] == "" {
		t.Errorf("the stop or the annotations are forgotten: %+v", s)
	}
	if s, c := x.Count(); s != 1 || c != 0 {
		t.Errorf("%d sandboxes and %d containers, want only the one that is there", s, c)
	}
}

// TestRemoveUnlistedSandbox: the list of containers was older than that of
// sandboxes, and the removal in between is answered last.
func TestRemoveUnlistedSandbox(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	x.Rebuild("a").Finish(nil, []Container{{ID: "c", Backend: "a", Sandbox: "s"}, {ID: "other", Backend: "a", Sandbox: "o"}})
	if _, ok := x.RemoveSandbox("s"); ok {
		t.Error("a sandbox that was never listed is known")
	}
	if _, ok := x.ContainerOwner([]byte("c")); ok {
		t.Error("its container is still routed")
	}
	if _, ok := x.ContainerOwner([]byte("other")); !ok {
		t.Error("another sandbox's container is gone")
	}
}

func TestUnfulfilled(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	x.Pin(Pod{UID: "made"}, "h")
	x.PutSandbox(Sandbox{ID: "s", Backend: "a", Pod: Pod{UID: "made"}})
	x.Pin(Pod{UID: "lost"}, "h")
	if got := x.Unfulfilled(time.Now().Add(-time.Minute)); len(got) != 0 {
		t.Errorf("too early: %v", got)
	}
	if got := x.Unfulfilled(time.Now().Add(time.Minute)); !slices.Equal(got, []Pod{{UID: "lost"}}) {
		t.Errorf("got %v, want the one without a sandbox", got)
	}
}

// TestIndexConcurrent is for the race detector.
func TestIndexConcurrent(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("%d-%d", w, i)
				x.PutSandbox(Sandbox{ID: id, Backend: "a", Pod: Pod{UID: id}, Ready: true})
				x.PutContainer(Container{ID: id + "c", Backend: "a", Sandbox: id, Image: "i"})
				x.Ready(func(s Sandbox) bool { return slices.Contains(s.Images, "i") })
				x.SetAnnotations(id, map[string]string{"a": id})
				if i%50 == 0 {
					x.Rebuild("b").Finish(nil, nil)
				}
				x.RemoveSandbox(id)
			}
		})
	}
	wg.Wait()
	if s, c := x.Count(); s+c != 0 {
		t.Errorf("%d sandboxes and %d containers are left", s, c)
	}
}

// TestOwnerAllocations: a look-up by id, which every call makes, allocates
// nothing.
func TestOwnerAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun measures the whole process.
	x := NewIndex()
	for i := range 10000 {
		x.PutContainer(Container{ID: fmt.Sprintf("%064d", i), Backend: "a"})
	}
	id := fmt.Appendf(nil, "%064d", 77)
	if n := testing.AllocsPerRun(100, func() { x.ContainerOwner(id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIndexContainer(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	x.PutSandbox(Sandbox{ID: "s", Backend: "a", Handler: "h"})
	x.PutContainer(Container{ID: "c", Backend: "a", Sandbox: "s"})
	x.PutContainer(Container{ID: "lost", Backend: "a", Sandbox: "unlisted"})
	if c, handler, ok := x.Container([]byte("c")); c.ID != "c" || c.Sandbox != "s" || handler != "h" || !ok {
		t.Errorf("got %+v of handler %q, %v", c, handler, ok)
	}
	for _, id := range []string{"lost", "", "none"} {
		if _, handler, ok := x.Container([]byte(id)); handler != "" || ok {
			t.Errorf("container %q: handler %q, %v, want it not known", id, handler, ok)
		}
	}
}

// TestKeep: from then on that several handlers may mean one runtime all of their
// pods are told by pins, those that are there and those that come.
func TestKeep(t *testing.T) {
	t.Parallel()
	alone := table(t, "[handlers.runc]\nbackend = \"a\"\n[handlers.kata]\nbackend = \"b\"")
	shared := table(t, "[handlers.runc]\nbackend = \"a\"\n[handlers.fast]\nbackend = \"a\"\nruntime = \"runc\"\n[handlers.kata]\nbackend = \"b\"")
	pod := func(name string) Pod { return Pod{Name: name, UID: name} }
	x := NewIndex()
	if keep := x.Keep(alone); len(keep) > 0 {
		t.Errorf("no runtime is shared, and to be kept are %v", keep)
	}
	x.PutSandbox(Sandbox{ID: "listed", Backend: "a", Handler: "runc", Pod: pod("listed")})
	x.PutSandbox(Sandbox{ID: "other", Backend: "b", Handler: "kata", Pod: pod("other")})
	x.PutSandbox(Sandbox{ID: "no pod", Backend: "a", Handler: "runc"})
	if x.Pin(pod("made"), "runc") || x.Pin(pod("made on b"), "kata") {
		t.Error("no runtime is shared, and a pin is to be on disk")
	}
	want := map[Pod]string{pod("listed"): "runc", pod("made"): "runc"}
	if keep := x.Keep(alone, shared); !maps.Equal(keep, want) {
		t.Errorf("to be kept are %v, want %v", keep, want)
	}
	for _, p := range []Pod{pod("listed"), pod("made")} {
		if handler, ok := x.Pinned(p); !ok || handler != "runc" {
			t.Errorf("%s is pinned to %q, %v", p.Name, handler, ok)
		}
	}
	if !x.Pin(pod("late"), "runc") || !x.Pin(pod("new"), "fast") || x.Pin(pod("late on b"), "kata") {
		t.Error("the pins of runc and fast are to be on disk, and that of kata is not")
	}
	x.Keep(alone)
	if x.Pin(pod("later"), "runc") {
		t.Error("no runtime is shared any more, and a pin is to be on disk")
	}
}
