package fakeruntime

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStopContainer calls the service itself, in virtual time, which a real socket would not have.
func TestStopContainer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		delay   time.Duration // of the container
		timeout int64         // of the call, seconds
		caller  time.Duration // until the caller gives up, 0 = never
		took    time.Duration
		code    codes.Code
		exit    int32 // 0 = still running
	}{
		{"ends at its signal", 0, 30, 0, 0, codes.OK, 143},
		{"ends some time after its signal", 3 * time.Second, 30, 0, 3 * time.Second, codes.OK, 143},
		{"is killed after the timeout", time.Minute, 2, 0, 2 * time.Second, codes.OK, 137},
		{"ignores its signal", -1, 5, 0, 5 * time.Second, codes.OK, 137},
		{"is killed at once", time.Minute, 0, 0, 0, codes.OK, 137},
		{"the caller gives up", -1, 30, time.Second, time.Second, codes.DeadlineExceeded, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRuntime(Options{})
				s := &service{state: r.state, events: r.events, options: r.current}
				id := r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{}), State: runtimeapi.ContainerState_CONTAINER_RUNNING})
				r.SetStopDelay(id, tt.delay)
				ctx := t.Context()
				if tt.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.caller)
					defer cancel()
				}
				begin := time.Now()
				_, err := s.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: tt.timeout})
				if took := time.Since(begin); took != tt.took || status.Code(asStatus(err)) != tt.code {
					t.Errorf("it took %v and gave %v, want %v and %v", took, err, tt.took, tt.code)
				}
				st := must[*runtimeapi.ContainerStatusResponse](t)(s.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})).GetStatus()
				if running := st.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING; running != (tt.exit == 0) || st.GetExitCode() != tt.exit {
					t.Errorf("the container is %v, exit code %d, want %d", st.GetState(), st.GetExitCode(), tt.exit)
				}
				r.Reset()
			})
		})
	}
}

func TestSecondStopDoesNotSignalAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRuntime(Options{})
		s := &service{state: r.state, events: r.events, options: r.current}
		id := r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{}), State: runtimeapi.ContainerState_CONTAINER_RUNNING})
		r.SetStopDelay(id, 10*time.Second)
		begin := time.Now()
		first, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if _, err := s.StopContainer(first, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 30}); err == nil {
			t.Error("the first stop answered before its container ended")
		}
		must[*runtimeapi.StopContainerResponse](t)(s.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 30}))
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("the container ended after %v, want 10s after the first signal", took)
		}
	})
}

func TestExecSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		cmd     []string
		timeout int64
		exit    time.Duration // when the container ends, 0 = never
		took    time.Duration
		stdout  string
		code    int32
		err     string
	}{
		{name: "echo", cmd: []string{"/bin/drain", "-a"}, stdout: "/bin/drain -a"},
		{name: "exit code", cmd: []string{"exit", "3"}, code: 3},
		{name: "within the timeout", cmd: []string{"sleep", "1.5"}, timeout: 2, took: 1500 * time.Millisecond},
		{
			name: "beyond the timeout", cmd: []string{"sleep", "10"}, timeout: 2, took: 2 * time.Second,
			err: "DeadlineExceeded: failed to exec in container: timeout 2s exceeded: context deadline exceeded",
		},
		{name: "no timeout", cmd: []string{"sleep", "500"}, took: 500 * time.Second},
		{name: "killed with its container", cmd: []string{"sleep", "500"}, exit: time.Second, took: time.Second, code: 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRuntime(Options{})
				s := &service{state: r.state, events: r.events, options: r.current}
				id := r.AddContainer(Container{SandboxID: r.AddSandbox(Sandbox{}), State: runtimeapi.ContainerState_CONTAINER_RUNNING})
				if tt.exit > 0 {
					time.AfterFunc(tt.exit, func() { r.Exit(id, 0) })
				}
				begin := time.Now()
				resp, err := s.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: tt.cmd, Timeout: tt.timeout})
				wantError(t, asStatus(err), tt.err)
				if took := time.Since(begin); took != tt.took || string(resp.GetStdout()) != tt.stdout || resp.GetExitCode() != tt.code {
					t.Errorf("after %v: %v, want %+v", took, resp, tt)
				}
			})
		})
	}
}
