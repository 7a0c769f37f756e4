package routing

import "time"

// pin is the handler of an attempt at a pod.
type pin struct {
	handler string
	since   time.Time
}

// Pin keeps an attempt at a pod on a handler: a retry of a create whose answer
// was lost must not make a second sandbox elsewhere. It reports whether the pin
// is one of those that are to be on disk; see [Index.Keep].
func (x *Index) Pin(p Pod, handler string) (keep bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pins[p] = pin{handler, time.Now()}
	return x.kept[handler]
}

// Keep says that the pins of all handlers that share a runtime in one of the
// tables are to be on disk, since no list could tell them again. It pins the
// sandboxes that such handlers have, and returns all pins that are to be on disk
// by now. Of each that is made later, Pin says so.
func (x *Index) Keep(tables ...*Table) map[Pod]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.kept = map[string]bool{}
	for _, t := range tables {
		for name, h := range t.handlers {
			x.kept[name] = x.kept[name] || h.Shared
		}
	}
	for _, e := range x.sandboxes {
		if _, pinned := x.pins[e.record.Pod]; !pinned && x.kept[e.record.Handler] && e.record.Pod.UID != "" {
			x.pins[e.record.Pod] = pin{e.record.Handler, time.Now()}
		}
	}
	keep := map[Pod]string{}
	for p, pinned := range x.pins {
		if x.kept[pinned.handler] {
			keep[p] = pinned.handler
		}
	}
	return keep
}

// Pinned returns the handler of an attempt at a pod.
func (x *Index) Pinned(p Pod) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	pinned, ok := x.pins[p]
	return pinned.handler, ok
}

// Unfulfilled returns the pods that were pinned before that time and of which
// no sandbox is known.
func (x *Index) Unfulfilled(before time.Time) []Pod {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var pods []Pod
	for p, pinned := range x.pins {
		if _, exists := x.pods[p]; !exists && pinned.since.Before(before) {
			pods = append(pods, p)
		}
	}
	return pods
}

// Unpin forgets a pin: nothing came of the attempt, or it is removed.
func (x *Index) Unpin(p Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pins, p)
}

// HandlerInUse reports whether there is a sandbox of a handler, or may be one soon.
func (x *Index) HandlerInUse(handler string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, pinned := range x.pins {
		if pinned.handler == handler {
			return true
		}
	}
	for _, e := range x.sandboxes {
		if e.record.Handler == handler {
			return true
		}
	}
	return false
}
