package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// double is a runtime without sockets, for tests under synctest: it keeps time
// as containerd does and notes what happened when. What it does not have panics.
type double struct {
	runtimeapi.RuntimeServiceClient

	mu         sync.Mutex
	began      time.Time
	containers map[string]*doubled
	notes      []string
	execs      map[string]int // By command.
	exec       func(ctx context.Context, command []string) (int32, error)
	stopError  func() error
	away       bool
	pod        map[string]string // The sandbox's annotations.
	effect     func(what string) // Called after each effect.
}

type doubled struct {
	status    *runtimeapi.ContainerStatus
	stubborn  bool // It ignores TERM.
	signalled bool
	exited    chan struct{}
}

const (
	sandboxID = "sandbox"
	running   = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited    = runtimeapi.ContainerState_CONTAINER_EXITED
)

func newDouble() *double {
	return &double{began: time.Now(), containers: map[string]*doubled{}, execs: map[string]int{}}
}

// add puts a container into its sandbox.
func (d *double) add(id string, state runtimeapi.ContainerState, annotations map[string]string) *doubled {
	c := &doubled{exited: make(chan struct{}), status: &runtimeapi.ContainerStatus{
		Id: id, State: state, Metadata: &runtimeapi.ContainerMetadata{Name: "app"}, Annotations: annotations,
	}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.containers[id] = c
	return c
}

func (d *double) note(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	d.notes = append(d.notes, fmt.Sprintf("%s %s", time.Since(d.began), what))
}

// all are the notes so far.
func (d *double) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.notes)
}

func (d *double) ran(command string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.execs[command]
}

// state is that of the container c, which the tests are about.
func (d *double) state() runtimeapi.ContainerState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.containers["c"].status.GetState()
}

func (d *double) setAway(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

func (d *double) done(what string) {
	if d.effect != nil {
		d.effect(what)
	}
}

// get also answers for a runtime that is away and a caller that has gone.
func (d *double) get(ctx context.Context, id string) (*doubled, error) {
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if d.away {
		return nil, status.Error(codes.Unavailable, "the runtime is away")
	}
	if c, ok := d.containers[id]; ok {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "no container %q", id)
}

func (d *double) exit(c *doubled, why string) {
	if c.status.GetState() != running {
		return
	}
	c.status = &runtimeapi.ContainerStatus{Id: c.status.GetId(), State: exited, Metadata: c.status.GetMetadata(), Annotations: c.status.GetAnnotations()}
	close(c.exited)
	d.note("%s", why)
}

// exitNow ends the container c by itself.
func (d *double) exitNow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exit(d.containers["c"], "exit")
}

// start is the runtime's StartContainer.
func (d *double) start(ctx context.Context, id string) error {
	d.mu.Lock()
	c, err := d.get(ctx, id)
	if err == nil && c.status.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED {
		err = errors.New("it was started already")
	}
	if err == nil {
		c.status = &runtimeapi.ContainerStatus{Id: id, State: running, Metadata: c.status.GetMetadata(), Annotations: c.status.GetAnnotations()}
		d.note("start")
	}
	d.mu.Unlock()
	if err == nil {
		d.done("start")
	}
	return err
}

func (d *double) ContainerStatus(ctx context.Context, req *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := d.get(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatusResponse{Status: c.status}, nil
}

func (d *double) PodSandboxStatus(ctx context.Context, req *runtimeapi.PodSandboxStatusRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: req.GetPodSandboxId(), Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "ns", Uid: "uid"},
		Labels: map[string]string{"app": "shop"}, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "127.0.0.1"}, Annotations: d.pod,
	}}, nil
}

func (d *double) ListContainers(ctx context.Context, _ *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := &runtimeapi.ListContainersResponse{}
	for id, c := range d.containers {
		if c.status.GetState() == running {
			answer.Containers = append(answer.Containers, &runtimeapi.Container{Id: id, PodSandboxId: sandboxID})
		}
	}
	return answer, ctx.Err()
}

// ExecSync runs "sleep <duration>" and "exit <code>"; all else succeeds at once.
func (d *double) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	d.mu.Lock()
	c, err := d.get(ctx, req.GetContainerId())
	if err == nil && c.status.GetState() != running {
		err = status.Error(codes.Unknown, "the container does not run")
	}
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	command := strings.Join(req.GetCmd(), " ")
	d.execs[command]++
	d.note("exec %s", command)
	exec := d.exec
	d.mu.Unlock()
	d.done("exec")
	var code int32
	if exec == nil {
		exec = c.run
	}
	if code, err = exec(ctx, req.GetCmd()); err != nil {
		return nil, err
	}
	return &runtimeapi.ExecSyncResponse{ExitCode: code, Stdout: []byte("output")}, nil
}

func (c *doubled) run(ctx context.Context, command []string) (int32, error) {
	switch command[0] {
	case "exit":
		return 3, nil
	case "sleep":
		d, err := time.ParseDuration(command[1])
		if err != nil {
			return 2, err
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.exited:
			return 137, nil
		case <-ctx.Done():
			return 0, status.FromContextError(ctx.Err()).Err()
		}
	}
	return 0, nil
}

func (d *double) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	d.mu.Lock()
	c, err := d.get(ctx, req.GetContainerId())
	if status.Code(err) == codes.NotFound {
		err = nil
	}
	if err == nil && d.stopError != nil {
		err = d.stopError()
	}
	if err != nil || c == nil || c.status.GetState() != running {
		d.mu.Unlock()
		return &runtimeapi.StopContainerResponse{}, err
	}
	timeout := time.Duration(req.GetTimeout()) * time.Second
	if timeout > 0 && !c.signalled {
		c.signalled = true
		d.note("TERM")
		if !c.stubborn {
			d.exit(c, "end")
		}
	}
	d.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-timer.C:
		d.mu.Lock()
		d.exit(c, "KILL")
		d.mu.Unlock()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	d.done("stop")
	return &runtimeapi.StopContainerResponse{}, nil
}
