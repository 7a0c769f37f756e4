package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// errExited ends the commands in a container that ends.
var errExited = errors.New("the container exited")

// ExecSync runs Options.Exec within the request's timeout. The end of the container kills the command, exit code 137.
func (s *service) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	exec := s.options().Exec
	exited, err := s.state.running(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("failed to exec in container: %w", err)
	}
	execCtx, cancel := until(ctx, exited)
	defer cancel()
	if timeout := time.Duration(req.GetTimeout()) * time.Second; timeout > 0 {
		var stop context.CancelFunc
		execCtx, stop = context.WithTimeoutCause(execCtx, timeout, fmt.Errorf("timeout %v exceeded: %w", timeout, context.DeadlineExceeded))
		defer stop()
	}
	resp, err := exec(execCtx, req)
	if execCtx.Err() == nil {
		return resp, err
	}
	if cause := context.Cause(execCtx); !errors.Is(cause, errExited) {
		return nil, fmt.Errorf("failed to exec in container: %w", cause)
	}
	return &runtimeapi.ExecSyncResponse{ExitCode: exitKilled}, nil
}

// until is a context that also ends, with the cause errExited, when exited closes.
func until(ctx context.Context, exited <-chan struct{}) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if await(ctx, exited) == nil {
			cancel(errExited)
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// running returns the channel that closes when the running container ends.
func (s *state) running(id string) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.containers.get(id)
	if err != nil {
		return nil, fmt.Errorf("failed to find container %q in store: %w", id, err)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, fmt.Errorf("container is in %s state", c.state)
	}
	return c.exited, nil
}

// Echo is the default of Options.Exec: "sleep N" waits for N seconds, "exit N" ends with code N, and any other command is
// its own output on stdout, its words joined by blanks.
func Echo(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	cmd := req.GetCmd()
	if len(cmd) != 2 || (cmd[0] != "sleep" && cmd[0] != "exit") {
		return echo(cmd), nil
	}
	n, err := strconv.ParseFloat(cmd[1], 64)
	if err != nil {
		return &runtimeapi.ExecSyncResponse{ExitCode: 2, Stderr: []byte(err.Error())}, nil
	}
	if cmd[0] == "exit" {
		return &runtimeapi.ExecSyncResponse{ExitCode: int32(n)}, nil
	}
	timer := time.NewTimer(time.Duration(n * float64(time.Second)))
	defer timer.Stop()
	return &runtimeapi.ExecSyncResponse{}, await(ctx, timer.C)
}

func echo(cmd []string) *runtimeapi.ExecSyncResponse {
	return &runtimeapi.ExecSyncResponse{Stdout: []byte(strings.Join(cmd, " "))}
}

// Exec gives a URL for a running container.
func (s *service) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := s.state.running(req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.ExecResponse{Url: streamingURL(s.options().StreamingURL, "exec")}, nil
}

// Attach gives a URL for a running container.
func (s *service) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := s.state.running(req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.AttachResponse{Url: streamingURL(s.options().StreamingURL, "attach")}, nil
}

// streamingURL has a token of eight characters, as those of the CRI streaming server.
func streamingURL(base, action string) string { return base + "/" + action + "/" + newID()[:8] }
