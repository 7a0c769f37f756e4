package handlers

import (
	"context"
	"sync"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// list answers a unary list from all backends that the filter can mean. Their
// answers are fetched side by side and strung together undecoded. It is whole
// or an error: to the kubelet, a pod that is missing from a list is dead.
func (r *Runtime) list(ctx context.Context, call *rawcri.Call) error {
	if r.Backends.Single() {
		return r.toDefault(ctx, call)
	}
	f, err := readFilter(call)
	if err != nil {
		return err
	}
	parts, err := r.parts(ctx, call, f)
	defer free(parts)
	if err != nil {
		return err
	}
	merged, err := rawcri.Merge(call.Method.Name, parts)
	if err != nil {
		return err
	}
	return call.Send(merged)
}

func free(frames []*rawcri.Frame) {
	for _, f := range frames {
		f.Free()
	}
}

// parts fetches each backend's part of a list, or the first error in the
// backends' order.
func (r *Runtime) parts(ctx context.Context, call *rawcri.Call, f filter) ([]*rawcri.Frame, error) {
	targets := r.targets(f)
	parts := make([]*rawcri.Frame, len(targets))
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, b := range targets[1:] {
		wg.Go(func() { parts[i+1], errs[i+1] = r.part(ctx, call, b, f) })
	}
	parts[0], errs[0] = r.part(ctx, call, targets[0], f)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return parts, err
		}
	}
	return parts, nil
}

// targets returns the backends that can have what the filter asks for: the
// owner of an id that is known, else all.
func (r *Runtime) targets(f filter) []*backend.Backend {
	all := r.Backends.All()
	if f.container != "" {
		if name, ok := r.Index.ContainerOwner([]byte(f.container)); ok && r.Backends.Get(name) != nil {
			return []*backend.Backend{r.Backends.Get(name)}
		}
	}
	if f.sandbox != "" {
		if name, ok := r.Index.SandboxOwner([]byte(f.sandbox)); ok && r.Backends.Get(name) != nil {
			return []*backend.Backend{r.Backends.Get(name)}
		}
	}
	return all
}

// part fetches one backend's part of a list, within its list_timeout.
func (r *Runtime) part(ctx context.Context, call *rawcri.Call, b *backend.Backend, f filter) (*rawcri.Frame, error) {
	if !b.Up() {
		return r.without(call.Method.Name, b, f, b.Away())
	}
	done := func(*rawcri.Frame) {}
	if last := lastOf(b, call.Method.Name); last != nil && f.all {
		since := last.Begin()
		done = func(list *rawcri.Frame) { last.End(since, list) }
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	list, err := r.Backends.Fetch(limited, call.Method, b, call.Request)
	done(list)
	if err != nil && backend.IsAway(ctx, err) {
		return r.lost(call.Method.Name, b, f, err)
	}
	return list, err
}

// lost returns the part of a backend that did not answer a list. One that is
// slow with its pods is away; one that is slow with statistics, which have to be
// read from the kernel, is not: new pods can start there.
func (r *Runtime) lost(method string, b *backend.Backend, f filter, err error) (*rawcri.Frame, error) {
	if lastOf(b, method) == nil {
		return r.without(method, b, f, b.NoAnswer(method, err))
	}
	b.Suspect(err)
	return r.without(method, b, f, b.Away())
}

// lastOf returns where the last answer to a list method is kept, nil for
// methods of which none is.
func lastOf(b *backend.Backend, method string) *backend.LastList {
	switch method {
	case "ListPodSandbox", "StreamPodSandboxes":
		return &b.Sandboxes
	case "ListContainers", "StreamContainers":
		return &b.Containers
	default:
		return nil
	}
}

// without returns the part of a backend that is away: of the pods what it last
// listed, since those live on without their runtime; nothing of a backend that
// has no pods; else the error, away.
func (r *Runtime) without(method string, b *backend.Backend, f filter, away error) (*rawcri.Frame, error) {
	last := lastOf(b, method)
	if last == nil {
		if b.State().Listed && !r.Index.Holds(b.Name) {
			return rawcri.NewFrame(nil), nil
		}
		return nil, away
	}
	if b.Config.WhenDown != configs.WhenDownLastKnown {
		return nil, away
	}
	list, changes, ok := last.Snapshot()
	if !ok {
		return nil, away
	}
	defer list.Free()
	return f.known(list, changes)
}
