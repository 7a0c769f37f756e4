package configs

import "reflect"

// Config is one whole configuration file. [Load] and [Parse] return it complete and validated, and it is not changed afterwards.
type Config struct {
	// Version is the version of the file's format; 1 is the only one.
	Version int `toml:"version"`
	// DefaultHandler serves pods that name no RuntimeClass, and image calls that belong to no pod.
	DefaultHandler string `toml:"default_handler"`

	Server     Server           `toml:"server"`
	State      State            `toml:"state"`
	Admin      Admin            `toml:"admin"`
	Log        Log              `toml:"log"`
	Tracing    Tracing          `toml:"tracing"`
	Kubernetes Kubernetes       `toml:"kubernetes"`
	ServiceEnv ServiceEnvSource `toml:"service_env"`

	// Backends are the upstream runtimes by their name here, which also stands in conditions and metric labels.
	Backends map[string]Backend `toml:"backends"`
	// Handlers are the RuntimeClass handlers that pods may name.
	Handlers map[string]Handler `toml:"handlers"`

	// source remembers where each key stood; nil for a Config that was not read from a file.
	source *document
}

// Equal tells whether two configurations ask for the same, wherever they were read from.
func (c *Config) Equal(other *Config) bool {
	a, b := *c, *other
	a.source, b.source = nil, nil
	return reflect.DeepEqual(a, b)
}

// Server is the CRI socket that the kubelet connects to.
type Server struct {
	// Listen is a unix socket, normalised to unix:///path.
	Listen string `toml:"listen"`
	// SocketMode are the permission bits of the socket.
	SocketMode FileMode `toml:"socket_mode"`
	// ShutdownTimeout bounds how long calls in flight may still run after a stop was asked for.
	ShutdownTimeout Duration `toml:"shutdown_timeout"`
}

// State is what must survive a restart and cannot be learnt again from the backends.
type State struct {
	// Dir is an absolute path.
	Dir string `toml:"dir"`
}

// Admin is the interface for operators: health, metrics, status, profiles.
type Admin struct {
	// Listen is a unix socket, normalised to unix:///path.
	Listen string `toml:"listen"`
	// MetricsListen is a host:port that serves /metrics only; "" means that metrics are on the admin socket alone.
	MetricsListen string `toml:"metrics_listen"`
}

// Log is what is logged, and how.
type Log struct {
	// Level is one of trace, debug, info, warn and error.
	Level string `toml:"level"`
	// Format is [LogText] or [LogJSON].
	Format string `toml:"format"`
}

// Tracing is where spans go.
type Tracing struct {
	// Endpoint is the host:port of an OTLP/gRPC collector; "" means that no spans are made.
	Endpoint string `toml:"endpoint"`
}

// Kubernetes is the way to the API server.
type Kubernetes struct {
	// Kubeconfig is an absolute path; "" means no API server, hence no Events and no cache of Services.
	Kubeconfig string `toml:"kubeconfig"`
}

// ServiceEnvSource is where Services come from when it is not the API server.
type ServiceEnvSource struct {
	// ServicesFile is the absolute path of a file of v1.Service objects; "" means the API server.
	ServicesFile string `toml:"services_file"`
}

// Backend is one upstream CRI runtime.
type Backend struct {
	// Endpoint is the socket of its RuntimeService, normalised to unix:///path.
	Endpoint string `toml:"endpoint"`
	// ImageEndpoint is the socket of its ImageService, normalised to unix:///path; "" means Endpoint.
	ImageEndpoint string `toml:"image_endpoint"`
	// ListTimeout is how long a list may take before the backend counts as away. It matters only with two or more backends.
	ListTimeout Duration `toml:"list_timeout"`
	// WhenDown is [WhenDownLastKnown] or [WhenDownFail]. It matters only with two or more backends.
	WhenDown string `toml:"when_down"`
	// LastKnownTTL is how old a last known answer may be; 0 means as old as this process.
	LastKnownTTL Duration `toml:"last_known_ttl"`
}

// Images returns the endpoint of the backend's ImageService.
func (b Backend) Images() string {
	if b.ImageEndpoint == "" {
		return b.Endpoint
	}
	return b.ImageEndpoint
}

// Handler is one RuntimeClass handler: the runtime that serves it and what is done for its pods.
type Handler struct {
	// Backend is a key of [Config.Backends].
	Backend string `toml:"backend"`
	// Runtime is the backend's own name for the runtime: nil means the handler's name, "" the backend's default. See [Handler.RuntimeName].
	Runtime *string `toml:"runtime"`

	Images     Images            `toml:"images"`
	Hooks      Hooks             `toml:"hooks"`
	ServiceEnv HandlerServiceEnv `toml:"service_env"`
}

// RuntimeName returns the name by which the backend knows the runtime of the handler that is called handlerName.
func (h Handler) RuntimeName(handlerName string) string {
	if h.Runtime == nil {
		return handlerName
	}
	return *h.Runtime
}

// Images is how the images of one handler are pulled and found.
type Images struct {
	// PullPolicy is [PullAsRequested], [PullAlways] or [PullNever].
	PullPolicy string `toml:"pull_policy"`
	// MaxParallelPulls limits the pulls that run side by side; 0 means no limit.
	MaxParallelPulls int `toml:"max_parallel_pulls"`
	// Snapshotter narrows "present" to images that are unpacked in it (containerd only); "" means the runtime's own.
	Snapshotter string `toml:"snapshotter"`
	// AuthFiles are absolute paths of docker config.json files.
	AuthFiles []string `toml:"auth_files"`
	// CredentialProviders is the absolute path of a kubelet CredentialProviderConfig; "" means none.
	CredentialProviders string `toml:"credential_providers"`
	// CredentialProviderBinDir is the absolute path of the directory of the plugins.
	CredentialProviderBinDir string `toml:"credential_provider_bin_dir"`
	// Preload are references that are pulled at start and shown as pinned.
	Preload []string `toml:"preload"`
	// Allow are patterns of references; empty means that all are allowed.
	Allow []string `toml:"allow"`
	// RequireDigest refuses references without a digest.
	RequireDigest bool `toml:"require_digest"`
}

// HandlerServiceEnv is whether and how containers of one handler get the Service variables.
type HandlerServiceEnv struct {
	Enabled bool `toml:"enabled"`
	// Namespaces are further namespaces beside the pod's own.
	Namespaces []string `toml:"namespaces"`
	// OnUnavailable is [UnavailableFail] or [UnavailableSkip]: what happens before the first sync.
	OnUnavailable string `toml:"on_unavailable"`
}

// The values of [Log.Format].
const (
	LogText = "text"
	LogJSON = "json"
)

// The values of [Backend.WhenDown].
const (
	// WhenDownLastKnown answers lists of an away backend from its last answer.
	WhenDownLastKnown = "last-known"
	// WhenDownFail makes lists fail while the backend is away.
	WhenDownFail = "fail"
)

// The values of [Images.PullPolicy].
const (
	// PullAsRequested pulls when the kubelet asks for it.
	PullAsRequested = "as-requested"
	// PullAlways makes every container start prove the pod's own credentials.
	PullAlways = "always"
	// PullNever serves only what was pulled before.
	PullNever = "never"
)

// The values of [HandlerServiceEnv.OnUnavailable].
const (
	// UnavailableFail refuses the container until the Services are known.
	UnavailableFail = "fail"
	// UnavailableSkip starts the container without the variables.
	UnavailableSkip = "skip"
)
