package handlers

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// pinTime is how long an attempt at a pod whose sandbox never showed up stays on
// its handler: longer than any create, of which the kubelet's last four minutes.
const pinTime = 10 * time.Minute

// pin keeps the attempt on its handler. It is on disk before the create is
// sent when the backend could not tell afterwards which handler it was.
func (r *Runtime) pin(pod routing.Pod, handler routing.Handler) error {
	if pod.UID == "" {
		return nil
	}
	// The index knows more than this call's configuration: by a newer one another
	// handler may mean the same runtime.
	if !r.Index.Pin(pod, handler.Name) {
		return nil
	}
	if err := r.Pins.Put(pod.Key(), handler.Name); err != nil {
		return status.Errorf(codes.Internal, "the handler of pod %s cannot be kept on disk, its sandbox is not created: %v", pod.UID, err)
	}
	return nil
}

// unpinAfter lets the attempt go elsewhere when the runtime has refused it.
// After an error that may hide a success it stays pinned.
func (r *Runtime) unpinAfter(pod routing.Pod, err error) {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return
	}
	if _, exists := r.Index.PodSandbox(pod); !exists {
		r.unpin(pod)
	}
}

func (r *Runtime) unpin(pod routing.Pod) {
	if _, ok := r.Index.Pinned(pod); !ok {
		return
	}
	r.Index.Unpin(pod)
	// A pin too many costs a few bytes until the next start, which drops those
	// of pods that are gone.
	if err := r.Pins.Delete(pod.Key()); err != nil {
		r.Log.WithField("pod", pod.UID).WithError(err).Warn("the handler of a removed pod stays on disk until the next start")
	}
}

// dropOldPins forgets an attempt of which no sandbox came, or a pod that is
// created in vain, again and again, would leave one each time. Before that the
// backends are asked: the answer to the create may have been lost. It is one for
// each create, which makes one at most: a create must not wait for many.
func (r *Runtime) dropOldPins(ctx context.Context) {
	old := r.Index.Unfulfilled(time.Now().Add(-pinTime))
	if len(old) == 0 || !r.Backends.AllUp() {
		return // Nothing to drop, or it may be on the one that is away.
	}
	if err := r.Backends.FindPod(ctx, old[0].UID); err != nil {
		return // As above; the next create asks again.
	}
	if _, exists := r.Index.PodSandbox(old[0]); !exists {
		r.unpin(old[0])
	}
}
