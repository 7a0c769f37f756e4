package handlers

import (
	"context"
	"sync"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// updateRuntimeConfig tells every backend the node's pod CIDR. All must take
// it: the kubelet logs an error and tries again at its next status update.
func (r *Runtime) updateRuntimeConfig(ctx context.Context, call *rawcri.Call) error {
	others := r.Backends.All()[1:]
	errs := make([]error, len(others))
	var wg sync.WaitGroup
	for i, b := range others {
		wg.Go(func() {
			if !b.Up() {
				errs[i] = b.Away() // At once: it may hang.
				return
			}
			answer, err := r.Backends.Fetch(ctx, call.Method, b, call.Request)
			answer.Free()
			errs[i] = err
		})
	}
	answer, err := r.Backends.Invoke(ctx, call, r.Backends.Default(), call.Request)
	wg.Wait()
	for _, e := range append([]error{err}, errs...) {
		if e != nil {
			answer.Free()
			return e
		}
	}
	return call.Send(answer)
}
