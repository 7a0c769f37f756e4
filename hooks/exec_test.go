package hooks

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestExec(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		answer  *runtimeapi.ExecSyncResponse
		err     error
		want    string
	}{
		{name: "success", answer: &runtimeapi.ExecSyncResponse{Stdout: []byte(secret)}},
		{name: "exit code", answer: &runtimeapi.ExecSyncResponse{ExitCode: 42, Stderr: []byte(secret)}, want: "exit code 42"},
		{name: "killed", answer: &runtimeapi.ExecSyncResponse{ExitCode: 137}, want: "exit code 137"},
		{name: "no such program", err: errors.New("no such file or directory"), want: "no such file or directory"},
		{name: "the runtime's own time-out", err: status.Error(codes.DeadlineExceeded, "timeout 5s exceeded"), want: "timeout 5s exceeded"},
		{name: "more output than a message holds", answer: &runtimeapi.ExecSyncResponse{Stdout: bytes.Repeat([]byte(secret), 17<<20/len(secret))}, want: "ResourceExhausted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, fakeruntime.Options{Exec: func(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
				return tt.answer, tt.err
			}})
			e, logged := newCourier(t, logrus.InfoLevel)
			wantError(t, e.attempt(t.Context(), f, f.owed(journal.Hook{Exec: []string{"/bin/hook", "-a"}})), tt.want)
			if logged.String() != "" {
				t.Errorf("the log says %s", logged)
			}
			calls := f.Calls("ExecSync")
			if len(calls) != 1 {
				t.Fatalf("%d calls, want 1", len(calls))
			}
			request, ok := calls[0].Request.(*runtimeapi.ExecSyncRequest)
			if !ok || request.GetContainerId() != f.container || strings.Join(request.GetCmd(), " ") != "/bin/hook -a" {
				t.Errorf("the runtime was asked for %v", request)
			}
		})
	}
}

// A command that never answers, even though it is told to end: a background
// child that holds its output is such a one.
func TestExecHasItsOwnTimer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := newFake(t, fakeruntime.Options{Exec: func(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
		<-release
		return &runtimeapi.ExecSyncResponse{}, nil
	}})
	t.Cleanup(func() { close(release) })
	e, _ := newCourier(t, logrus.InfoLevel)
	err := e.attempt(t.Context(), f, f.owed(journal.Hook{Exec: []string{"/bin/hook"}, Timeout: 100 * time.Millisecond}))
	wantError(t, err, "longer than 100ms")
	request, ok := f.Calls("ExecSync")[0].Request.(*runtimeapi.ExecSyncRequest)
	if !ok || request.GetTimeout() < 1 || request.GetTimeout() > 2 {
		t.Errorf("the runtime was given %d s", request.GetTimeout())
	}
}

// Output is for the debug log, and only the beginning of it.
func TestOutputIsLogged(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakeruntime.Options{Exec: func(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
		return &runtimeapi.ExecSyncResponse{Stdout: bytes.Repeat([]byte("o"), 60<<10), Stderr: bytes.Repeat([]byte("e"), 60<<10)}, nil
	}})
	e, logged := newCourier(t, logrus.DebugLevel)
	wantError(t, e.attempt(t.Context(), f, f.owed(journal.Hook{Exec: []string{"/bin/hook"}})), "")
	text := logged.String()
	if !strings.Contains(text, strings.Repeat("o", 60<<10)+strings.Repeat("e", 4<<10)) || strings.Contains(text, strings.Repeat("e", 4<<10+1)) {
		t.Errorf("%d bytes were logged", len(text))
	}
}

// A container that ends under its hook, or has ended before, makes it moot.
func TestExecInAContainerThatEnds(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	r := f.owed(journal.Hook{Exec: []string{"sleep", "600"}, Attempts: 3})
	result := make(chan journal.Record, 1)
	go func() { result <- e.deliver(t.Context(), f, r) }()
	if _, err := f.WaitCalls(t.Context(), "ExecSync", 1); err != nil {
		t.Fatal(err)
	}
	f.Exit(f.container, 0)
	if done := <-result; done.State != journal.Moot || done.Attempts != 1 {
		t.Errorf("it is %s after %d attempts (%s)", done.State, done.Attempts, done.Error)
	}
	r.ID = "another"
	if done := e.deliver(t.Context(), f, r); done.State != journal.Moot || done.Attempts != 1 {
		t.Errorf("a later one is %s after %d attempts (%s)", done.State, done.Attempts, done.Error)
	}
}

// A runtime may tell that a command was killed, or cannot be run, a moment before
// it tells that the container has ended.
func TestExecIsToldBeforeTheEndOfItsContainer(t *testing.T) {
	t.Parallel()
	noSuch := status.Error(codes.Unknown, "failed to exec in container")
	for _, tt := range []struct {
		name   string
		code   int32
		err    error
		exits  bool
		want   journal.State
		reason string
	}{
		{name: "killed with it", code: 137, exits: true, want: journal.Moot, reason: errExited.Error()},
		{name: "too late for it", err: noSuch, exits: true, want: journal.Moot, reason: errExited.Error()},
		{name: "killed alone", code: 137, want: journal.Failed, reason: "exit code 137"},
		{name: "no such program", err: noSuch, want: journal.Failed, reason: "failed to exec"},
		{name: "failed before it", code: 1, exits: true, want: journal.Failed, reason: "exit code 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var f *fake
			var exiting sync.WaitGroup
			f = newFake(t, fakeruntime.Options{Exec: func(ctx context.Context, _ *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
				if tt.exits {
					exiting.Go(func() {
						wait(context.WithoutCancel(ctx), 200*time.Millisecond)
						f.Exit(f.container, 0)
					})
				}
				return &runtimeapi.ExecSyncResponse{ExitCode: tt.code}, tt.err
			}})
			e, _ := newCourier(t, logrus.InfoLevel)
			done := e.deliver(t.Context(), f, f.owed(journal.Hook{Exec: []string{"/bin/hook"}, Attempts: 1}))
			exiting.Wait()
			if done.State != tt.want || !strings.Contains(done.Error, tt.reason) {
				t.Errorf("it is %s (%s), want %s (%s)", done.State, done.Error, tt.want, tt.reason)
			}
		})
	}
}
