package fakeruntime

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options describe one fake runtime. The zero value is a healthy, current containerd
// with only the default runtime handler.
type Options struct {
	// Name is the runtime_name of Version and the value of every response's header and trailer; "" means "fake".
	Name string
	// Version is the runtime_version; "" means "v2.4.2".
	Version string
	// Socket is the path to listen on; "" means a new short temporary path.
	Socket string
	// Runtimes are the handler names that RunPodSandbox accepts beside "", the default.
	Runtimes []string
	// Features are the features of a runtime handler by its name ("" included); missing ones are all false.
	Features map[string]*runtimeapi.RuntimeHandlerFeatures
	// NodeFeatures are the runtime-wide features in Status; nil leaves them out.
	NodeFeatures *runtimeapi.RuntimeFeatures
	// OldStatus leaves runtime_handlers and features out of Status, as containerd 1.7 does.
	OldStatus bool
	// Conditions are those of Status; nil means RuntimeReady and NetworkReady, both true.
	Conditions []*runtimeapi.RuntimeCondition
	// Info is the info of a verbose Status; nil means {"config": "{}"}.
	Info map[string]string
	// CgroupDriver is the driver in RuntimeConfig; the zero value is systemd.
	CgroupDriver runtimeapi.CgroupDriver
	// ImageMountpoint is the mountpoint in ImageFsInfo; "" means a path made from Name.
	ImageMountpoint string
	// StreamingURL is the base of Exec, Attach and PortForward URLs; "" means "http://127.0.0.1:10010".
	StreamingURL string
	// StreamBatch is the number of items in one message of a Stream* list; 0 means 2.
	StreamBatch int
	// Unimplemented are the short names of methods that this runtime does not have.
	Unimplemented []string
	// PodCheckpoints implements CheckpointPod and RestorePod, which containerd 2.4 does not have.
	PodCheckpoints bool
	// SharedEvents gives each event to one subscriber only, as containerd 1.7 does.
	SharedEvents bool
	// UnknownField adds the string field UnknownFieldNumber with the value Name to every response,
	// and to every sandbox, container and image in the lists of objects made while it is set.
	UnknownField bool
	// UnknownMethod answers methods that cri-api does not know; nil means Unimplemented.
	UnknownMethod func(method string, request []byte) ([]byte, error)
	// Exec runs the command of an ExecSync in ctx, which ends at the request's timeout; nil means Echo.
	Exec func(ctx context.Context, request *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error)
	// Pull is asked before an image is pulled; its error is the answer. nil allows every pull.
	Pull func(ctx context.Context, request *runtimeapi.PullImageRequest) error
	// NoJournal keeps no journal, for benchmarks and long runs.
	NoJournal bool
}

func (o Options) withDefaults() Options {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&o.Name, "fake")
	fill(&o.Version, "v2.4.2")
	fill(&o.ImageMountpoint, "/var/lib/"+o.Name)
	fill(&o.StreamingURL, "http://127.0.0.1:10010")
	if o.StreamBatch <= 0 {
		o.StreamBatch = 2
	}
	if o.Exec == nil {
		o.Exec = Echo
	}
	return o
}

// knows reports whether handler is one of its runtime handlers.
func (o Options) knows(handler string) bool {
	return handler == "" || slices.Contains(o.Runtimes, handler)
}

// itemMark is the unknown field of listed objects.
func (o Options) itemMark() []byte {
	if !o.UnknownField {
		return nil
	}
	return unknownField(o.Name)
}
