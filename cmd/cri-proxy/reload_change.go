package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// namedPods is how many pods a refusal names.
const namedPods = 3

// change is the step from one generation to the next, which may be too large.
type change struct {
	index     *routing.Index
	old, next *generation
	gone      []*backend.Backend
	creating  map[string]int // Pod sandboxes being made on those that are gone.
}

// problems returns all that speaks against it.
func (c change) problems() configs.Problems {
	found := c.next.cfg.NeedsRestart(c.old.cfg)
	for _, b := range c.gone {
		if why := c.inUse(b); why != "" {
			found = append(found, c.next.cfg.Problem(why, "backends", b.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.old.cfg.Handlers)) {
		found = append(found, c.moved(name)...)
	}
	return found.InFileOrder()
}

// inUse returns why a backend cannot go; "" when it can.
func (c change) inUse(b *backend.Backend) string {
	what := "was removed"
	if _, still := c.next.cfg.Backends[b.Name]; still {
		what = "has another endpoint"
	}
	pods := c.index.Sandboxes(func(s routing.Sandbox) bool { return s.Backend == b.Name })
	if len(pods) > 0 {
		return fmt.Sprintf("%s, but it has %s; remove them first, or leave the backend as it is", what, podsIn(pods))
	}
	if n := c.creating[b.Name]; n > 0 {
		return fmt.Sprintf("%s, but pod sandboxes are being made on it (%d); reload again later", what, n)
	}
	return ""
}

// podsIn counts pods and names the first of them, and their handlers.
func podsIn(pods []routing.Sandbox) string {
	var names []string
	handlers := map[string]bool{}
	for _, s := range pods {
		names = append(names, s.Pod.Namespace+"/"+s.Pod.Name)
		handlers[s.Handler] = true
	}
	slices.Sort(names)
	more := ""
	if len(names) > namedPods {
		more = ", …"
		names = names[:namedPods]
	}
	noun := "pod sandbox"
	if len(pods) > 1 {
		noun = "pod sandboxes"
	}
	return fmt.Sprintf("%d %s of %s (%s%s)",
		len(pods), noun, strings.Join(slices.Sorted(maps.Keys(handlers)), ", "), strings.Join(names, ", "), more)
}

// moved returns why a handler cannot be another runtime's from now on: calls for
// the pods that it has would be taken for that one's.
func (c change) moved(name string) configs.Problems {
	before, err := c.old.table.Find(name)
	if err != nil {
		return nil //nolint:nilerr // The table is made of these names.
	}
	now, err := c.next.table.Find(name)
	if err != nil || (now.Backend == before.Backend && now.Runtime == before.Runtime) {
		return nil //nolint:nilerr // It is gone, and nothing of it is left.
	}
	pods := c.index.Sandboxes(func(s routing.Sandbox) bool { return s.Handler == name })
	if len(pods) == 0 {
		return nil
	}
	return configs.Problems{c.next.cfg.Problem(fmt.Sprintf(
		"was runtime %q of backend %q and has %s; remove them first, or give the new handler another name", before.Runtime, before.Backend, podsIn(pods)), "handlers", name)}
}

// unreached returns what is wrong with backends that are new and do not answer:
// as long as it is not known which pods they have, the node's lists would fail.
func (c change) unreached(failed map[string]error) configs.Problems {
	var found configs.Problems
	for name, err := range failed {
		found = append(found, c.next.cfg.Problem(fmt.Sprintf("does not answer, start it first: %v", err), "backends", name))
	}
	return found.InFileOrder()
}

// keepHandlers puts the handlers of pods on disk whose backend can no longer
// tell them, since another handler means the same runtime by now.
func (c change) keepHandlers(put func(pod, handler string) error) error {
	shared := func(s routing.Sandbox) bool {
		now, err := c.next.table.Find(s.Handler)
		return s.Handler != "" && err == nil && now.Shared && s.Pod.UID != ""
	}
	for _, s := range c.index.Sandboxes(shared) {
		if err := put(s.Pod.Key(), s.Handler); err != nil {
			return fmt.Errorf("keep the handlers of running pods: %w", err)
		}
	}
	return nil
}
