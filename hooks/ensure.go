package hooks

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/json"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// Exec passes an ExecSync on by calling exec, and remembers if it was the kubelet
// running the pod's own PreStop, so that a stop does not run it again. While it
// runs that is known to this process only: the runtime ends a command when this
// program dies, so one that was cut off is run again.
func (e *Engine) Exec(ctx context.Context, c Container, request *runtimeapi.ExecSyncRequest, exec func(context.Context) error) error {
	if request.GetTimeout() != 0 || e.config(c.Handler).PodPreStop != configs.PodPreStopEnsure {
		return exec(ctx)
	}
	t, err := e.look(ctx, c)
	if err != nil || !isPreStop(t, request.GetCmd()) {
		return exec(ctx)
	}
	e.countExec(c.ID, 1)
	defer e.countExec(c.ID, -1)
	err = exec(ctx)
	if err == nil {
		e.remember(t)
	}
	return err
}

// isPreStop reports whether a command is the container's own exec PreStop.
func isPreStop(t *target, command []string) bool {
	var handler corev1.LifecycleHandler
	text := t.status.GetAnnotations()[preStopAnnotation]
	if text == "" || json.UnmarshalCaseSensitivePreserveInts([]byte(text), &handler) != nil || handler.Exec == nil {
		return false
	}
	return slices.Equal(handler.Exec.Command, command)
}

func (e *Engine) remember(t *target) {
	if t.seen {
		return // A commit for nothing.
	}
	err := e.Journal.Update(func(tx *journal.Tx) error {
		c, err := t.known(tx)
		if err != nil {
			return err
		}
		c.Seen = true
		return tx.PutContainer(c)
	})
	if err != nil {
		e.Log.WithError(err).WithField("container", t.ID).Error("that the kubelet has run a PreStop cannot be recorded: it will be run again")
	}
}

func (e *Engine) countExec(container string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.execs[container] += n; e.execs[container] == 0 {
		delete(e.execs, container)
	}
}

func (e *Engine) execRunning(container string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.execs[container] > 0
}
