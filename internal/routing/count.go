package routing

import "maps"

// Load is how much of something there is.
type Load struct{ Sandboxes, Containers int }

// Loads returns what each handler has, by its public name; "" stands for
// sandboxes whose handler no configuration has named, and for containers of
// which the sandbox is not known.
func (x *Index) Loads() map[string]Load {
	x.mu.RLock()
	defer x.mu.RUnlock()
	loads := map[string]Load{}
	for _, e := range x.sandboxes {
		l := loads[e.record.Handler]
		l.Sandboxes++
		loads[e.record.Handler] = l
	}
	for _, e := range x.containers {
		handler := x.sandboxes[e.record.Sandbox].record.Handler
		l := loads[handler]
		l.Containers++
		loads[handler] = l
	}
	return loads
}

// Forget drops all that is known of a backend that is no more.
func (x *Index) Forget(backend string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.sandboxes {
		if e.record.Backend == backend {
			x.dropSandbox(e.record)
		}
	}
	maps.DeleteFunc(x.containers, func(_ string, c entry[Container]) bool { return c.record.Backend == backend })
}
