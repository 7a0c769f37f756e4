package handlers

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// hooked returns the backend of the container that a call is about, and the
// container if its handler has hooks. Without one the call is to pass as it came:
// what to say of an id that means nothing is for the runtime.
func (r *Runtime) hooked(ctx context.Context, call *rawcri.Call) (*backend.Backend, *hooks.Container, error) {
	b, err := r.owner(ctx, call)
	if err != nil {
		return nil, nil, err
	}
	id, err := call.Request.ID()
	if err != nil || len(id) == 0 {
		return b, nil, nil //nolint:nilerr // The runtime says what is wrong with it.
	}
	known, handler, ok := r.Index.Container(id)
	c := hooks.Container{ID: known.ID, Sandbox: known.Sandbox, Handler: handler}
	if !ok {
		if c, err = r.findContainer(ctx, b, string(id)); err != nil {
			return nil, nil, err
		}
	}
	if !r.areHooked(c.Handler, c.ID) {
		return b, nil, nil
	}
	return b, &c, nil
}

// areHooked reports whether the calls about a container or a sandbox are the
// hooks': by its handler, or since it is being stopped or started by them.
func (r *Runtime) areHooked(handler, id string) bool {
	return r.hasHooks(handler) || r.Hooks != nil && r.Hooks.Owns(id)
}

// hasHooks reports whether the calls about a handler's containers are the hooks'.
func (r *Runtime) hasHooks(handler string) bool { return r.Hooks != nil && r.Hooks.Has(handler) }

// hooksAnywhere reports whether it matters which handler a container has.
func (r *Runtime) hooksAnywhere() bool {
	return slices.ContainsFunc(r.Table.Names(), r.hasHooks) || slices.ContainsFunc(r.Table.Draining(), r.hasHooks) || r.Hooks != nil && r.Hooks.IsBusy()
}

// handlerMatters reports whether it matters which handler a new container has.
func (r *Runtime) handlerMatters() bool {
	return r.hooksAnywhere() || r.ServiceEnv != nil && r.ServiceEnv.HasSource()
}

// findContainer asks a backend for a container that routing does not know by
// this id, which may be short. With a single backend nobody else asks.
func (r *Runtime) findContainer(ctx context.Context, b *backend.Backend, id string) (hooks.Container, error) {
	if !r.hooksAnywhere() {
		return hooks.Container{}, nil
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	list, err := b.Runtime().ListContainers(limited, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: id}})
	if err != nil {
		return hooks.Container{}, unanswered(ctx, b, "ListContainers", err)
	}
	if len(list.GetContainers()) != 1 {
		return hooks.Container{}, nil
	}
	found := list.GetContainers()[0]
	sandbox, handler, err := r.sandboxHandler(ctx, b, found.GetPodSandboxId())
	return hooks.Container{ID: found.GetId(), Sandbox: sandbox, Handler: handler}, err
}

// sandboxHandler returns a sandbox's full id and its handler, which is "" when
// there is no such sandbox.
func (r *Runtime) sandboxHandler(ctx context.Context, b *backend.Backend, id string) (sandbox, handler string, err error) {
	id = r.Index.FullSandboxID(b.Name, id)
	if known, ok := r.Index.Sandbox(id); ok {
		return id, known.Handler, nil
	}
	if id == "" || !r.handlerMatters() {
		return id, "", nil
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	answer, err := b.Runtime().PodSandboxStatus(limited, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if status.Code(err) == codes.NotFound {
		return id, "", nil
	}
	if err != nil {
		return "", "", unanswered(ctx, b, "PodSandboxStatus", err)
	}
	found := answer.GetStatus()
	if pinned, ok := r.Index.Pinned(backend.PodOf(found.GetMetadata())); ok {
		return found.GetId(), pinned, nil
	}
	handler = r.Table.HandlerOf(b.Name, found.GetRuntimeHandler())
	return found.GetId(), handler, nil
}

// unanswered is the error of a question of ours that a backend did not answer.
func unanswered(ctx context.Context, b *backend.Backend, method string, err error) error {
	if backend.IsAway(ctx, err) {
		return b.NoAnswer(method, err)
	}
	return err
}

// within passes a call on where do says so, and answers when do has returned.
func (r *Runtime) within(call *rawcri.Call, b *backend.Backend, do func(pass func(context.Context) error) error) error {
	var answer *rawcri.Frame
	err := do(func(ctx context.Context) (err error) {
		answer, err = r.Backends.Invoke(ctx, call, b, call.Request)
		return err
	})
	if err != nil {
		answer.Free()
		return err
	}
	return call.Send(answer)
}
