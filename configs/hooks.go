package configs

// Hooks are the lifecycle hooks of one handler's containers.
type Hooks struct {
	// AllowPodHooks honours the annotation by which a pod brings hooks of its own.
	AllowPodHooks bool `toml:"allow_pod_hooks"`
	// AllowOptOut honours the annotation by which a pod refuses the node's hooks.
	AllowOptOut bool `toml:"allow_opt_out"`
	// PodPreStop is [PodPreStopKubelet] or [PodPreStopEnsure].
	PodPreStop string `toml:"pod_pre_stop"`
	// PostStart and PreStop are delivered one after another, in this order.
	PostStart []PostStartHook `toml:"post_start"`
	PreStop   []Hook          `toml:"pre_stop"`
}

// Hook is one thing to do at an event. Exactly one of Exec, HTTPGet and Sleep is set.
type Hook struct {
	// Name is unique among the hooks of the same handler and event.
	Name    string       `toml:"name"`
	Exec    *ExecHook    `toml:"exec,inline,omitempty"`
	HTTPGet *HTTPGetHook `toml:"http_get,inline,omitempty"`
	Sleep   *SleepHook   `toml:"sleep,inline,omitempty"`
	// Timeout bounds one attempt; it is more than 0.
	Timeout Duration `toml:"timeout"`
	// Attempts is at least 1.
	Attempts int `toml:"attempts"`
	// Backoff is the pause before the second attempt; it doubles up to [MaxBackoff].
	Backoff Duration `toml:"backoff"`
	Match   Match    `toml:"match,inline"`
}

// PostStartHook is a [Hook] with what has a meaning only while a container starts.
type PostStartHook struct {
	Hook

	// Wait holds the reply of StartContainer until the hook is delivered or has failed.
	Wait bool `toml:"wait"`
	// OnFailure is [OnFailureKill] or [OnFailureIgnore].
	OnFailure string `toml:"on_failure"`
}

// ExecHook runs a command in the container.
type ExecHook struct {
	Command []string `toml:"command"`
}

// HTTPGetHook sends a GET request.
type HTTPGetHook struct {
	// Scheme is http or https.
	Scheme string `toml:"scheme"`
	// Host is a name or an address; "" means the pod's.
	Host string `toml:"host"`
	Port int    `toml:"port"`
	// Path begins with a slash and may end with a query.
	Path    string   `toml:"path"`
	Headers []Header `toml:"headers"`
}

// Header is one header of a request.
type Header struct {
	Name  string `toml:"name"`
	Value string `toml:"value"`
}

// SleepHook waits.
type SleepHook struct {
	Seconds int `toml:"seconds"`
}

// Match selects containers. Each part that is empty matches everything; a container must match all parts.
type Match struct {
	Containers []string          `toml:"containers"`
	Namespaces []string          `toml:"namespaces"`
	Labels     map[string]string `toml:"labels"`
}

// The values of [Hooks.PodPreStop].
const (
	// PodPreStopKubelet leaves the pod's own PreStop to the kubelet.
	PodPreStopKubelet = "kubelet"
	// PodPreStopEnsure runs it where the kubelet did not.
	PodPreStopEnsure = "ensure"
)

// The values of [PostStartHook.OnFailure].
const (
	// OnFailureKill stops the container.
	OnFailureKill = "kill"
	// OnFailureIgnore leaves it running.
	OnFailureIgnore = "ignore"
)
