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
		found = append(found, c.unlisted(name)...)
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
	was := fmt.Sprintf("was runtime %q of backend %q and ", before.Runtime, before.Backend)
	if pods := c.index.Sandboxes(func(s routing.Sandbox) bool { return s.Handler == name }); len(pods) > 0 {
		why := was + "has " + podsIn(pods) + "; remove them first, or give the new handler another name"
		return configs.Problems{c.next.cfg.Problem(why, "handlers", name)}
	}
	if n := c.old.backends.Get(before.Backend).Creating(); n > 0 {
		why := fmt.Sprintf("%spod sandboxes are being made there (%d), which may be its own; reload again later", was, n)
		return configs.Problems{c.next.cfg.Problem(why, "handlers", name)}
	}
	return nil
}

// unlisted returns why a handler cannot share its runtime from now on: which pods
// are its own is known as long as it does not, and its backend was never asked.
func (c change) unlisted(name string) configs.Problems {
	before, err := c.old.table.Find(name)
	if err != nil || before.Shared {
		return nil //nolint:nilerr // The table is made of these names.
	}
	now, err := c.next.table.Find(name)
	if err != nil || !now.Shared || c.old.backends.Get(before.Backend).State().Listed {
		return nil //nolint:nilerr // It is gone, and nothing of it is left.
	}
	return configs.Problems{c.next.cfg.Problem(fmt.Sprintf(
		"shares the runtime %q with another handler by now, but backend %q was not reached yet, and afterwards nobody knows whose its pods are; reload when it is up", now.Runtime, now.Backend), "handlers", name)}
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
// tell them, since another handler means the same runtime by now: of those that
// are there, and of those that are being made. One that is begun later keeps its
// own, also if it began in the old generation.
func (c change) keepHandlers(put func(handlers map[string]string) error) error {
	handlers := map[string]string{}
	for pod, handler := range c.index.Keep(c.old.table, c.next.table) {
		handlers[pod.Key()] = handler
	}
	if err := put(handlers); err != nil {
		c.index.Keep(c.old.table)
		return fmt.Errorf("keep the handlers of running pods: %w", err)
	}
	return nil
}
