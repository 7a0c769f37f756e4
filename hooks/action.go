package hooks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

const (
	// maxOutput is how much of a command's output reaches the debug log.
	maxOutput = 64 << 10
	// sleepLook is how often a sleep looks whether its container still runs.
	sleepLook = time.Second
)

// exec runs a command in the container. The timer is ours: a runtime may wait
// for a child that the command left behind long after the command's end. The
// end of ctx ends the command too, and so does the runtime's own time-out if
// this program is killed meanwhile.
func (e *Engine) exec(ctx context.Context, client runtimeapi.RuntimeServiceClient, r journal.Record) error {
	request := &runtimeapi.ExecSyncRequest{ContainerId: r.Container, Cmd: r.Hook.Exec}
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = seconds(time.Until(deadline)) + 1
	} else if r.Deadline != nil {
		request.Timeout = seconds(e.Clock.at(*r.Deadline)-e.Clock.Boot()) + 1
	}
	answer, err := client.ExecSync(ctx, request)
	if err != nil {
		return err
	}
	e.showOutput(r, answer)
	if answer.GetExitCode() != 0 {
		return exitError(answer.GetExitCode())
	}
	return nil
}

// exitError is a command that has failed, by its exit code.
type exitError int32

// Error gives the code.
func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int32(e)) }

// mayHaveEnded reports whether the end of the container is a reason for a
// command's error: it was killed, or the runtime could not run it.
func mayHaveEnded(err error) bool {
	if code, ok := errors.AsType[exitError](err); ok {
		return code == 128+exitError(syscall.SIGKILL)
	}
	_, ok := status.FromError(err)
	return ok
}

func (e *Engine) showOutput(r journal.Record, answer *runtimeapi.ExecSyncResponse) {
	if !e.Log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		return
	}
	out := slices.Concat(answer.GetStdout(), answer.GetStderr())
	e.Log.WithFields(logrus.Fields{"delivery": r.ID, "container": r.Container, "exit_code": answer.GetExitCode()}).
		Debugf("output of a hook: %q", out[:min(maxOutput, len(out))])
}

// sleep waits, unless there is nothing left to wait for.
func (*Engine) sleep(ctx context.Context, client runtimeapi.RuntimeServiceClient, r journal.Record) error {
	end := time.NewTimer(r.Hook.Sleep)
	defer end.Stop()
	look := time.NewTicker(sleepLook)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if !isRunning(ctx, client, r.Container) {
				return errExited
			}
		}
	}
}

// seconds rounds up: the CRI counts in whole ones, and 0 has a meaning of its own.
func seconds(d time.Duration) int64 { return int64(math.Ceil(max(0, d).Seconds())) }
