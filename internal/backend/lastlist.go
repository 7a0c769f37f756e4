package backend

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// maxChanges is how many corrections are kept beside a list that nobody renews;
// the kubelet does so every second. Beyond that the list is forgotten.
const maxChanges = 4096

// LastList is what a backend last listed of one kind, unfiltered and with
// handler names translated, held as the bytes that came; beside it the creates
// and removals that were answered since. Nothing is decoded until somebody asks
// while the backend is away.
type LastList struct {
	mu      sync.Mutex
	ttl     time.Duration // How old the list may be; 0: as old as this process.
	frame   *rawcri.Frame
	taken   time.Time
	since   uint64 // Up to which change frame has them all.
	seq     uint64
	changes []Change
	open    int // Lists under way.
}

// Change is one object that was created or, without an item, removed.
type Change struct {
	ID   string
	Item proto.Message // As it would be listed.
	seq  uint64
}

func (l *LastList) setTTL(ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ttl = ttl
}

// Begin is called before a list is fetched, and is followed by End. What
// changes from then on may or may not be in the list, so it is kept beside it.
func (l *LastList) Begin() (since uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	return l.seq
}

// End takes the list that began at since. A nil list failed; any other is
// referred to and stays the caller's to free.
func (l *LastList) End(since uint64, list *rawcri.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if list == nil || since < l.since {
		if l.frame == nil && l.open == 0 {
			l.changes = nil // No list needs them.
		}
		return // It failed, or is older than what is known.
	}
	l.frame.Free()
	l.frame, l.taken, l.since = list.Ref(), time.Now(), since
	l.changes = slices.DeleteFunc(l.changes, func(c Change) bool { return c.seq <= since })
}

// Created records an object that a create made, as it would be listed.
func (l *LastList) Created(id string, item proto.Message) { l.note(Change{ID: id, Item: item}) }

// Removed records that an object is gone, and with a sandbox its containers.
func (l *LastList) Removed(id string) { l.note(Change{ID: id}) }

func (l *LastList) note(c Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frame == nil && l.open == 0 {
		return // There is no list to correct; the first one will have it.
	}
	if c.Item == nil {
		l.changes = slices.DeleteFunc(l.changes, c.undoes)
	}
	l.seq++
	c.seq = l.seq
	l.changes = append(l.changes, c)
	if len(l.changes) > maxChanges {
		l.frame.Free()
		// Nor may a list that is on its way be taken without its corrections.
		l.frame, l.changes, l.since = nil, nil, l.seq
	}
}

// undoes reports whether a removal makes an earlier change pointless: that of
// the same object, or of a container in the same sandbox.
func (c Change) undoes(earlier Change) bool {
	in, ok := earlier.Item.(interface{ GetPodSandboxId() string })
	return earlier.ID == c.ID || (ok && in.GetPodSandboxId() == c.ID)
}

// Snapshot returns the list, to be freed by the caller, and its corrections in
// order; false when there is none or it is too old.
func (l *LastList) Snapshot() (*rawcri.Frame, []Change, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frame == nil || (l.ttl > 0 && time.Since(l.taken) > l.ttl) {
		return nil, nil, false
	}
	return l.frame.Ref(), slices.Clone(l.changes), true
}

// free gives the list's buffers back.
func (l *LastList) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frame.Free()
	l.frame = nil
}
