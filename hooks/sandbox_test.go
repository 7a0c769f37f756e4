package hooks

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The teardown of a sandbox does not fail because a runtime cannot stop a container.
func TestEndsOfWhatTheRuntimeCannotStop(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		d.stopError = func() error { return status.Error(codes.Unknown, "the shim is stuck") }
		err := errors.Join(r.EndSandbox(t.Context(), Container{Sandbox: sandboxID, Handler: handlerName}), r.EndContainer(t.Context(), container("c")))
		if err != nil || d.ran("true") != 1 {
			t.Errorf("%v, the hook ran %d times", err, d.ran("true"))
		}
		d.mu.Lock()
		d.stopError = nil
		d.mu.Unlock()
		after(t, time.Minute)
		r.clean()
	})
}
