package handlers

import (
	"context"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// stopPodSandbox passes on and remembers that the sandbox is no longer READY:
// image calls are no longer meant for it.
func (r *Runtime) stopPodSandbox(ctx context.Context, call *rawcri.Call) error {
	return r.passThen(ctx, call, func(b *backend.Backend, id string) {
		r.Index.SetNotReady(r.Index.FullSandboxID(b.Name, id))
	})
}

// removePodSandbox passes on and forgets the sandbox.
func (r *Runtime) removePodSandbox(ctx context.Context, call *rawcri.Call) error {
	return r.passThen(ctx, call, func(b *backend.Backend, id string) {
		id = r.Index.FullSandboxID(b.Name, id)
		b.Sandboxes.Removed(id)
		b.Containers.Removed(id)
		if s, ok := r.Index.RemoveSandbox(id); ok {
			r.unpin(s.Pod)
		}
	})
}

// removeContainer passes on and forgets the container.
func (r *Runtime) removeContainer(ctx context.Context, call *rawcri.Call) error {
	return r.passThen(ctx, call, func(b *backend.Backend, id string) {
		id = r.Index.FullContainerID(b.Name, id)
		b.Containers.Removed(id)
		r.Index.RemoveContainer(id)
	})
}

// passThen passes a call on and, when it succeeded, calls learn before the
// caller can know.
func (r *Runtime) passThen(ctx context.Context, call *rawcri.Call, learn func(b *backend.Backend, id string)) error {
	b, err := r.owner(ctx, call)
	if err != nil {
		return err
	}
	answer, err := r.Backends.Invoke(ctx, call, b, call.Request)
	if err != nil {
		return err
	}
	if id, err := call.Request.ID(); err == nil {
		learn(b, string(id))
	}
	return call.Send(answer)
}
