package handlers

import (
	"context"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// stopPodSandbox passes on and remembers that the sandbox is no longer READY:
// image calls are no longer meant for it.
func (r *Runtime) stopPodSandbox(ctx context.Context, call *rawcri.Call) error {
	b, _, err := r.endSandbox(ctx, call)
	if err != nil {
		return err
	}
	return r.passThen(ctx, call, b, func(id string) {
		r.Index.SetNotReady(r.Index.FullSandboxID(b.Name, id))
	})
}

// removePodSandbox passes on and forgets the sandbox.
func (r *Runtime) removePodSandbox(ctx context.Context, call *rawcri.Call) error {
	b, hooked, err := r.endSandbox(ctx, call)
	if err != nil {
		return err
	}
	return r.passThen(ctx, call, b, func(id string) {
		id = r.Index.FullSandboxID(b.Name, id)
		if hooked {
			r.Hooks.ForgetSandbox(id)
		}
		b.Sandboxes.Removed(id)
		b.Containers.Removed(id)
		if s, ok := r.Index.RemoveSandbox(id); ok {
			r.unpin(s.Pod)
		}
	})
}

// endSandbox stops the containers of a sandbox whose handler has hooks, which a
// runtime would kill, and returns its backend.
func (r *Runtime) endSandbox(ctx context.Context, call *rawcri.Call) (b *backend.Backend, hooked bool, err error) {
	if b, err = r.owner(ctx, call); err != nil {
		return nil, false, err
	}
	id, err := call.Request.ID()
	if err != nil || len(id) == 0 {
		return b, false, nil //nolint:nilerr // The runtime says what is wrong with it.
	}
	sandbox, handler, err := r.sandboxHandler(ctx, b, string(id))
	if err != nil {
		return nil, false, err
	}
	if !r.areHooked(handler, sandbox) {
		return b, false, nil
	}
	err = r.Hooks.EndSandbox(ctx, hooks.Container{Sandbox: sandbox, Handler: handler})
	return b, true, r.afterStop(call, sandbox, err)
}

// passThen passes a call on and, when it succeeded, calls learn with the id in
// the request before the caller can know.
func (r *Runtime) passThen(ctx context.Context, call *rawcri.Call, b *backend.Backend, learn func(id string)) error {
	answer, err := r.Backends.Invoke(ctx, call, b, call.Request)
	if err != nil {
		return err
	}
	if id, err := call.Request.ID(); err == nil {
		learn(string(id))
	}
	return call.Send(answer)
}
