package routing

import "time"

// pin is the handler of an attempt at a pod.
type pin struct {
	handler string
	since   time.Time
}

// Pin keeps an attempt at a pod on a handler: a retry of a create whose answer
// was lost must not make a second sandbox elsewhere.
func (x *Index) Pin(p Pod, handler string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pins[p] = pin{handler, time.Now()}
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
