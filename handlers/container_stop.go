package handlers

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// longestGrace keeps what a caller may ask for within what a clock can count.
const longestGrace = 100 * 365 * 24 * time.Hour

// stopContainer passes on; the container of a handler with hooks is stopped by
// them, and its runtime's answer says nothing that would be missed.
func (r *Runtime) stopContainer(ctx context.Context, call *rawcri.Call) error {
	b, c, err := r.hooked(ctx, call)
	if err != nil {
		return err
	}
	if c == nil {
		return r.Backends.Forward(ctx, call, b)
	}
	var request runtimeapi.StopContainerRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	call.Backend = b.Name
	grace := min(request.GetTimeout(), int64(longestGrace/time.Second))
	if err := r.Hooks.Stop(ctx, *c, time.Duration(max(0, grace))*time.Second); err != nil {
		return err
	}
	return call.Reply(&runtimeapi.StopContainerResponse{})
}
