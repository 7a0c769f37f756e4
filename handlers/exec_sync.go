package handlers

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// execSync passes on. The kubelet runs a pod's own PreStop by it, which the
// hooks have to know where they are to run it otherwise.
func (r *Runtime) execSync(ctx context.Context, call *rawcri.Call) error {
	b, c, err := r.hooked(ctx, call)
	if err != nil {
		return err
	}
	if c == nil {
		return r.Backends.Forward(ctx, call, b)
	}
	var request runtimeapi.ExecSyncRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	return r.within(call, b, func(pass func(context.Context) error) error { return r.Hooks.Exec(ctx, *c, &request, pass) })
}
