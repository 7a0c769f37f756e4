package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exit codes of containers that were ended by a signal.
const (
	exitKilled     = 137
	exitTerminated = 143
)

// StopContainer sends the stop signal, once in a container's life, and kills after the timeout; with no timeout it kills
// at once. A caller that gives up meanwhile leaves the container as it is. An unknown id, and a container that
// does not run, are successes.
func (s *service) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	timeout := time.Duration(req.GetTimeout()) * time.Second
	c, running, err := s.state.beginStop(req.GetContainerId(), timeout)
	if err != nil {
		return nil, fmt.Errorf("an error occurred when try to find container %q: %w", req.GetContainerId(), err)
	}
	if !running {
		return &runtimeapi.StopContainerResponse{}, nil
	}
	if ended, err := waitExit(ctx, c, timeout); err != nil {
		return nil, err
	} else if !ended {
		s.state.kill(c)
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// beginStop finds the container and, if there is a timeout, signals it.
func (s *state) beginStop(id string, timeout time.Duration) (*container, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.containers.get(id)
	if errors.Is(err, errNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return c, false, nil
	}
	if timeout > 0 && !c.signalled {
		c.signalled = true
		s.signal(c)
	}
	return c, true, nil
}

func (s *state) signal(c *container) {
	switch {
	case c.stopDelay == 0:
		s.exit(c, exitTerminated)
	case c.stopDelay > 0:
		c.ending = time.AfterFunc(c.stopDelay, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.exit(c, exitTerminated)
		})
	}
}

// waitExit reports whether the container ended within the timeout.
func waitExit(ctx context.Context, c *container, timeout time.Duration) (bool, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *state) kill(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exit(c, exitKilled)
}

// exit ends a running container; others it leaves alone.
func (s *state) exit(c *container, code int32) {
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.halt()
	c.finishedAt = s.now()
	c.exitCode = code
	c.set(runtimeapi.ContainerState_CONTAINER_EXITED)
	close(c.exited)
	s.emit(c.id, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// Exit ends a running container by itself, with a STOPPED event. It panics if there is no such container.
func (r *Runtime) Exit(id string, code int32) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.state.exit(r.state.mustContainer(id), code)
}

// SetStopDelay makes a container take d to end after its stop signal; negative means that it ignores the signal and has
// to be killed. Containers end at once by default. It panics if there is no such container.
func (r *Runtime) SetStopDelay(id string, d time.Duration) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.state.mustContainer(id).stopDelay = d
}

// mustContainer is for tests, which name only containers that exist.
func (s *state) mustContainer(id string) *container {
	c, err := s.containers.get(id)
	if err != nil {
		panic(fmt.Sprintf("container %q of the fake runtime: %v", id, err))
	}
	return c
}
