package handlers

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// filter is what a list request asks for, of whichever kind it is.
type filter struct {
	sandbox    string // An id, maybe short.
	container  string // An id, maybe short.
	sandboxes  *runtimeapi.PodSandboxFilter
	containers *runtimeapi.ContainerFilter
	all        bool // Nothing is filtered out.
}

// readFilter decodes a list request; requests without a filter ask for all.
func readFilter(call *rawcri.Call) (filter, error) {
	var request proto.Message
	switch call.Method.Name {
	case "ListPodSandbox":
		request = &runtimeapi.ListPodSandboxRequest{}
	case "StreamPodSandboxes":
		request = &runtimeapi.StreamPodSandboxesRequest{}
	case "ListContainers":
		request = &runtimeapi.ListContainersRequest{}
	case "StreamContainers":
		request = &runtimeapi.StreamContainersRequest{}
	case "ListContainerStats":
		request = &runtimeapi.ListContainerStatsRequest{}
	case "StreamContainerStats":
		request = &runtimeapi.StreamContainerStatsRequest{}
	case "ListPodSandboxStats":
		request = &runtimeapi.ListPodSandboxStatsRequest{}
	case "StreamPodSandboxStats":
		request = &runtimeapi.StreamPodSandboxStatsRequest{}
	default:
		return filter{all: true}, nil
	}
	if err := call.Request.Decode(request); err != nil {
		return filter{}, malformed(call, err)
	}
	return filterOf(request), nil
}

func filterOf(request proto.Message) filter {
	switch q := request.(type) {
	case interface {
		GetFilter() *runtimeapi.PodSandboxFilter
	}:
		f := q.GetFilter()
		return filter{sandbox: f.GetId(), sandboxes: f, all: proto.Size(f) == 0}
	case interface {
		GetFilter() *runtimeapi.ContainerFilter
	}:
		f := q.GetFilter()
		all := proto.Size(f) == 0
		if f == nil {
			f = &runtimeapi.ContainerFilter{} // Says that containers are listed.
		}
		return filter{sandbox: f.GetPodSandboxId(), container: f.GetId(), containers: f, all: all}
	case interface {
		GetFilter() *runtimeapi.ContainerStatsFilter
	}:
		f := q.GetFilter()
		return filter{sandbox: f.GetPodSandboxId(), container: f.GetId(), all: proto.Size(f) == 0}
	case interface {
		GetFilter() *runtimeapi.PodSandboxStatsFilter
	}:
		f := q.GetFilter()
		return filter{sandbox: f.GetId(), all: proto.Size(f) == 0}
	default:
		return filter{all: true}
	}
}

// known returns a last known list, corrected and filtered, as the backend
// would give it.
func (f filter) known(list *rawcri.Frame, changes []backend.Change) (*rawcri.Frame, error) {
	if f.containers != nil {
		return f.knownContainers(list, changes)
	}
	return f.knownSandboxes(list, changes)
}

func (f filter) knownSandboxes(list *rawcri.Frame, changes []backend.Change) (*rawcri.Frame, error) {
	var known runtimeapi.ListPodSandboxResponse
	if err := list.Decode(&known); err != nil {
		return nil, err
	}
	for _, change := range changes {
		is := func(p *runtimeapi.PodSandbox) bool { return p.GetId() == change.ID }
		switch p, created := change.Item.(*runtimeapi.PodSandbox); {
		case !created:
			known.Items = slices.DeleteFunc(known.GetItems(), is)
		case !slices.ContainsFunc(known.GetItems(), is): // The list knows better what it has.
			known.Items = append(known.GetItems(), p)
		}
	}
	known.Items = slices.DeleteFunc(known.GetItems(), func(p *runtimeapi.PodSandbox) bool { return !f.wantsSandbox(p) })
	return rawcri.Encode(&known)
}

func (f filter) wantsSandbox(p *runtimeapi.PodSandbox) bool {
	state := f.sandboxes.GetState()
	return strings.HasPrefix(p.GetId(), f.sandboxes.GetId()) &&
		(state == nil || state.GetState() == p.GetState()) &&
		hasLabels(p.GetLabels(), f.sandboxes.GetLabelSelector())
}

func (f filter) knownContainers(list *rawcri.Frame, changes []backend.Change) (*rawcri.Frame, error) {
	var known runtimeapi.ListContainersResponse
	if err := list.Decode(&known); err != nil {
		return nil, err
	}
	for _, change := range changes {
		is := func(c *runtimeapi.Container) bool { return c.GetId() == change.ID }
		// A removed sandbox takes its containers along.
		isIn := func(c *runtimeapi.Container) bool { return is(c) || c.GetPodSandboxId() == change.ID }
		switch c, created := change.Item.(*runtimeapi.Container); {
		case !created:
			known.Containers = slices.DeleteFunc(known.GetContainers(), isIn)
		case !slices.ContainsFunc(known.GetContainers(), is): // The list knows better what it has.
			known.Containers = append(known.GetContainers(), c)
		}
	}
	known.Containers = slices.DeleteFunc(known.GetContainers(), func(c *runtimeapi.Container) bool { return !f.wantsContainer(c) })
	return rawcri.Encode(&known)
}

func (f filter) wantsContainer(c *runtimeapi.Container) bool {
	state := f.containers.GetState()
	return strings.HasPrefix(c.GetId(), f.containers.GetId()) &&
		strings.HasPrefix(c.GetPodSandboxId(), f.containers.GetPodSandboxId()) &&
		(state == nil || state.GetState() == c.GetState()) &&
		hasLabels(c.GetLabels(), f.containers.GetLabelSelector())
}

func hasLabels(labels, selector map[string]string) bool {
	for key, value := range selector {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}
