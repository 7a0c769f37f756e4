package handlers

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// removeContainer passes on and forgets the container. One that runs gets its
// PreStop hooks before.
func (r *Runtime) removeContainer(ctx context.Context, call *rawcri.Call) error {
	b, c, err := r.hooked(ctx, call)
	if err != nil {
		return err
	}
	if c != nil {
		if err := r.afterStop(call, c.ID, r.Hooks.EndContainer(ctx, *c)); err != nil {
			return err
		}
	}
	return r.passThen(ctx, call, b, func(id string) {
		id = r.Index.FullContainerID(b.Name, id)
		b.Containers.Removed(id)
		r.Index.RemoveContainer(id)
		if c != nil {
			r.Hooks.ForgetContainer(c.ID)
		}
	})
}

// afterStop returns the error of a stop before a call that takes down what it
// names anyway. What a runtime says against the stop is no reason to keep the
// pod; that nobody answers, or waits any more, is one, or hooks would be lost.
func (r *Runtime) afterStop(call *rawcri.Call, id string, err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	r.Log.WithField("id", id).WithError(err).Warnf("a container was not stopped before %s, which is passed on all the same", call.Method.Name)
	return nil
}
