package handlers

import (
	"context"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// startContainer passes on, with the container's PostStart hooks around it.
func (r *Runtime) startContainer(ctx context.Context, call *rawcri.Call) error {
	b, c, err := r.hooked(ctx, call)
	if err != nil {
		return err
	}
	if c == nil {
		return r.Backends.Forward(ctx, call, b)
	}
	return r.within(call, b, func(pass func(context.Context) error) error { return r.Hooks.Start(ctx, *c, pass) })
}
