package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"
)

// State is where a record stands.
type State string

// The states; the package comment draws the ways between them.
const (
	Pending   State = "pending"
	Running   State = "running"
	Delivered State = "delivered"
	Failed    State = "failed"
	Skipped   State = "skipped"
	Moot      State = "moot"
)

// States returns all states, in the order of a record's life.
func States() []State { return []State{Pending, Running, Delivered, Failed, Skipped, Moot} }

// Finished reports whether nothing more is to be done.
func (s State) Finished() bool {
	return s == Delivered || s == Failed || s == Skipped || s == Moot
}

func (s State) known() bool { return slices.Contains(States(), s) }

// MayBecome reports whether a record may go from s to next. A step may be left
// out, since the disk may not have taken it; only what is finished stays so.
func (s State) MayBecome(next State) bool {
	switch s {
	case Pending:
		return next.known()
	case Running:
		return next.known() && next != Pending
	case Failed:
		return next == Failed || next == Pending
	case Delivered, Skipped, Moot:
		return next == s
	}
	return false
}

// Event is a moment in a container's life.
type Event string

// The events, written as in Kubernetes' own errors and metrics.
const (
	PostStart Event = "PostStart"
	PreStop   Event = "PreStop"
)

// events are in the order in which a container sees them.
func events() []Event { return []Event{PostStart, PreStop} }

// Source tells who asked for a hook.
type Source string

// The sources, in the order in which their hooks are delivered.
const (
	FromNode Source = "node"     // The configuration.
	FromPod  Source = "pod"      // The pod's annotation.
	Ensured  Source = "pod-spec" // The pod's own PreStop, where the kubelet did not run it.
)

// Hook is a definition to deliver. Exactly one of Exec, HTTPGet and Sleep is set.
type Hook struct {
	Name    string        `json:"name"` // Unique among those of one source and event.
	Source  Source        `json:"source"`
	Exec    []string      `json:"exec,omitempty"`
	HTTPGet *HTTPGet      `json:"httpGet,omitempty"`
	Sleep   time.Duration `json:"sleep,omitempty"`

	Timeout  time.Duration `json:"timeout"` // Of one attempt; 0 = only the deadline bounds it.
	Attempts int           `json:"attempts"`
	Backoff  time.Duration `json:"backoff"`
	Wait     bool          `json:"wait,omitempty"` // PostStart: hold the reply of StartContainer.
	Kill     bool          `json:"kill,omitempty"` // PostStart: stop the container when it failed.
}

// Kind names what the hook does.
func (h Hook) Kind() string {
	switch {
	case len(h.Exec) > 0:
		return "exec"
	case h.HTTPGet != nil:
		return "httpGet"
	default:
		return "sleep"
	}
}

// HTTPGet is a request. Values of headers may be secrets.
type HTTPGet struct {
	Scheme  string   `json:"scheme"`         // "http" or "https".
	Host    string   `json:"host,omitempty"` // "" = the pod.
	Port    int      `json:"port"`
	Path    string   `json:"path"` // With its query.
	Headers []Header `json:"headers,omitempty"`
}

// Header is one header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Pod names a pod.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Deadline is a moment that outlives the process. Boot counts from the start of
// the machine (CLOCK_BOOTTIME) and means something only under the same boot id;
// Wall is for people, whose clocks jump.
type Deadline struct {
	Boot   time.Duration `json:"boot"`
	BootID string        `json:"bootId"`
	Wall   time.Time     `json:"wall"`
}

// Record is one hook that is owed to one container.
type Record struct {
	ID            string    `json:"id"` // The delivery id; see [DeliveryID].
	Container     string    `json:"container"`
	Sandbox       string    `json:"sandbox"`
	Handler       string    `json:"handler"`
	Pod           Pod       `json:"pod"`
	ContainerName string    `json:"containerName"`
	Event         Event     `json:"event"`
	Position      int       `json:"position"` // Among the container's hooks of this event.
	Hook          Hook      `json:"hook"`
	State         State     `json:"state"`
	Accepted      time.Time `json:"accepted"`           // The time of its first commit if left zero.
	Deadline      *Deadline `json:"deadline,omitempty"` // When the container's stop is due; nil for PostStart.
	Attempts      int       `json:"attempts"`           // Those that were begun.
	Error         string    `json:"error,omitempty"`    // Of the last attempt, or the reason of the state.
	Finished      time.Time `json:"finished,omitzero"`  // The time of the commit that finished it if left zero.
}

// DeliveryID returns the id of a hook's delivery. It follows from what the hook
// is, so that it is the same after a restart even if the disk never took the
// record: containers start once and stop once.
func DeliveryID(container string, event Event, h Hook) string {
	sum := sha256.New()
	for _, part := range []string{container, string(event), string(h.Source), h.Name} {
		sum.Write([]byte(part))
		sum.Write([]byte{0})
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Container is what must be known of a container until it is gone. Stop and
// Seen are set as they happen.
type Container struct {
	ID      string `json:"id"`
	Sandbox string `json:"sandbox"`
	Handler string `json:"handler"`
	Pod     Pod    `json:"pod"`
	Name    string `json:"name"`

	// Annotations are the pod's annotations about hooks as they were when the
	// container was created, which the runtime does not keep.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Seen says that the kubelet itself has run the pod's exec PreStop.
	Seen bool `json:"seen,omitempty"`
	// Stop is set from the moment at which a stop was accepted until the container has ended.
	Stop *Stop `json:"stop,omitempty"`
}

// Stop is an accepted stop.
type Stop struct {
	Accepted time.Time     `json:"accepted"`
	Asked    time.Duration `json:"asked"` // The shortest grace period that anybody asked for.
	Deadline Deadline      `json:"deadline"`
	// Chosen says that the stop's hooks are on disk. Those of a stop that a failed
	// PostStart calls for are chosen when it begins.
	Chosen bool `json:"chosen,omitempty"`
}
