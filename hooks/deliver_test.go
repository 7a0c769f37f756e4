package hooks

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// secret is in headers, queries, answers and output, and must never be in an error.
const secret = "hunter2"

// output is what an engine logs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// newCourier is an engine that does not run: it makes single attempts and deliveries.
func newCourier(t *testing.T, level logrus.Level) (*Engine, *output) {
	t.Helper()
	logged := &output{}
	logger := logrus.New()
	logger.SetOutput(logged)
	logger.SetLevel(level)
	log := logrus.NewEntry(logger)
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	e, err := New(Options{
		Journal: journal.New(store, nil),
		Clock:   Clock{Boot: func() time.Duration { return time.Since(began) }, BootID: "boot"},
		Backend: func(context.Context, Container) (runtimeapi.RuntimeServiceClient, error) {
			panic("a delivery has its client")
		},
		NodeIP:     func() string { return "127.0.0.1" },
		Registerer: prometheus.NewRegistry(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, logged
}

// fake is a real CRI runtime with one running container.
type fake struct {
	*fakeruntime.Runtime
	runtimeapi.RuntimeServiceClient

	sandbox, container string
}

func newFake(t *testing.T, o fakeruntime.Options) *fake {
	t.Helper()
	r := fakeruntime.Start(t, o)
	conn, err := grpc.NewClient(r.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	sandbox := r.AddSandbox(fakeruntime.Sandbox{Config: &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
		SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}},
	}}})
	return &fake{
		Runtime: r, RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(conn), sandbox: sandbox,
		container: r.AddContainer(fakeruntime.Container{SandboxID: sandbox, State: running}),
	}
}

// owed is a record of a hook that the fake's container is owed.
func (f *fake) owed(h journal.Hook) journal.Record {
	h.Name, h.Source = "hook", journal.FromNode
	h.Attempts, h.Backoff = max(1, h.Attempts), max(time.Millisecond, h.Backoff)
	if h.Timeout == 0 {
		h.Timeout = 20 * time.Second // For what may take long only if it is broken.
	}
	return journal.Record{
		ID: journal.DeliveryID(f.container, journal.PostStart, h), Container: f.container, Sandbox: f.sandbox, Handler: handlerName,
		ContainerName: "app", Event: journal.PostStart, Hook: h, State: journal.Pending, Accepted: time.Now(),
	}
}

// wantError fails unless err says want, and nothing that it must not; "" wants none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("it failed: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("the error is %v, want one with %q", err, want)
	case err != nil && strings.Contains(err.Error(), secret):
		t.Errorf("the error tells a secret: %v", err)
	}
}

// Attempts in time that costs nothing: the pauses between them, which is the
// last, and how a record ends.
func TestAttempts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		hook     journal.Hook
		before   journal.Record // State and Attempts, as the last process left them.
		failures int            // So many attempts fail before one succeeds.
		want     []string
		state    journal.State
		attempts int
	}{
		{
			name: "the first", hook: journal.Hook{Attempts: 3, Backoff: time.Second},
			want: []string{"0s"}, state: journal.Delivered, attempts: 1,
		},
		{
			name: "one only", hook: journal.Hook{Attempts: 1, Backoff: time.Second}, failures: 9,
			want: []string{"0s"}, state: journal.Failed, attempts: 1,
		},
		{
			name: "the third", hook: journal.Hook{Attempts: 3, Backoff: time.Second}, failures: 2,
			want: []string{"0s", "1s", "3s"}, state: journal.Delivered, attempts: 3,
		},
		{
			name: "pauses double up to five seconds", hook: journal.Hook{Attempts: 7, Backoff: 800 * time.Millisecond}, failures: 9,
			want: []string{"0s", "800ms", "2.4s", "5.6s", "10.6s", "15.6s", "20.6s"}, state: journal.Failed, attempts: 7,
		},
		{
			name: "the last process died in the only one", hook: journal.Hook{Attempts: 1, Backoff: time.Second},
			before: journal.Record{State: journal.Running, Attempts: 1}, want: []string{"0s"}, state: journal.Delivered, attempts: 2,
		},
		{
			name: "the last process died in the second of three", hook: journal.Hook{Attempts: 3, Backoff: time.Second},
			before: journal.Record{State: journal.Running, Attempts: 2}, failures: 9, want: []string{"0s", "1s"}, state: journal.Failed, attempts: 4,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, _ := newCourier(t, logrus.InfoLevel)
				d := newDouble()
				d.add("c", running, nil)
				var at []string
				d.exec = func(context.Context, []string) (int32, error) {
					at = append(at, time.Since(d.began).String())
					if len(at) <= tt.failures {
						return 1, nil
					}
					return 0, nil
				}
				r := (&fake{container: "c", sandbox: sandboxID}).owed(tt.hook)
				r.Hook.Exec = []string{"/bin/hook"}
				if tt.before.State != "" {
					r.State, r.Attempts = tt.before.State, tt.before.Attempts
				}
				done := e.deliver(t.Context(), d, r)
				if !slices.Equal(at, tt.want) || done.State != tt.state || done.Attempts != tt.attempts {
					t.Errorf("attempts at %v, then %s after %d (%s); want %v, %s, %d", at, done.State, done.Attempts, done.Error, tt.want, tt.state, tt.attempts)
				}
				if kept, err := e.Journal.Record(r.ID); err != nil || kept.State != tt.state || kept.Attempts != tt.attempts {
					t.Errorf("the journal says %s after %d attempts (%v)", kept.State, kept.Attempts, err)
				}
			})
		})
	}
}

// The end of a delivery by its owner, in the middle of each kind of work.
func TestDeliveryIsEnded(t *testing.T) {
	t.Parallel()
	const end = 2500 * time.Millisecond
	for name, hook := range map[string]journal.Hook{
		"exec":    {Exec: []string{"sleep", "1h"}},
		"sleep":   {Sleep: time.Hour},
		"a pause": {Exec: []string{"exit", "3"}, Attempts: 2, Backoff: 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, _ := newCourier(t, logrus.InfoLevel)
				d := newDouble()
				d.add("c", running, nil)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(end, func() { cancel(errGraceOver) })
				hook.Timeout = time.Hour
				done := e.deliver(ctx, d, (&fake{container: "c", sandbox: sandboxID}).owed(hook))
				if took := time.Since(d.began); took != end || done.State != journal.Failed || done.Error == "" {
					t.Errorf("it ended after %s as %s (%s)", took, done.State, done.Error)
				}
			})
		})
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		hook  journal.Hook
		exit  time.Duration // Of the container; 0 = never.
		took  time.Duration
		state journal.State
	}{
		{"whole", journal.Hook{Sleep: 90 * time.Second, Timeout: 100 * time.Second}, 0, 90 * time.Second, journal.Delivered},
		{"longer than its time-out", journal.Hook{Sleep: 90 * time.Second, Timeout: 5 * time.Second}, 0, 5 * time.Second, journal.Failed},
		{"longer than its container", journal.Hook{Sleep: 90 * time.Second, Timeout: time.Hour}, 10500 * time.Millisecond, 11 * time.Second, journal.Moot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, _ := newCourier(t, logrus.InfoLevel)
				d := newDouble()
				d.add("c", running, nil)
				if tt.exit > 0 {
					time.AfterFunc(tt.exit, func() { d.exitNow() })
				}
				done := e.deliver(t.Context(), d, (&fake{container: "c", sandbox: sandboxID}).owed(tt.hook))
				if took := time.Since(d.began); took != tt.took || done.State != tt.state {
					t.Errorf("it was %s after %s (%s), want %s after %s", done.State, took, done.Error, tt.state, tt.took)
				}
			})
		})
	}
}

// What a delivery tells the world has neither secrets nor output in it.
func TestReportTellsNoSecret(t *testing.T) {
	t.Parallel()
	f := newFake(t, fakeruntime.Options{Exec: func(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
		return &runtimeapi.ExecSyncResponse{ExitCode: 3, Stdout: []byte(secret), Stderr: []byte(secret)}, nil
	}})
	e, logged := newCourier(t, logrus.InfoLevel)
	var events []string
	e.Warn = func(_ journal.Pod, reason, message string) { events = append(events, reason+": "+message) }
	done := e.deliver(t.Context(), f, f.owed(journal.Hook{Exec: []string{"/bin/hook", secret}}))
	if want := []string{`FailedPostStartHook: PostStart hook "hook" of container "app" failed: exit code 3`}; !cmp.Equal(events, want) {
		t.Error(cmp.Diff(want, events))
	}
	if text := done.Error + logged.String(); strings.Contains(text, secret) || !strings.Contains(text, "hook failed") {
		t.Errorf("it says %s", text)
	}
}

// listenLocal listens on the loopback until the test ends.
func listenLocal(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return l
}

// A PreStop without a time-out of its own, as pods' hooks are, does not spend the
// grace period on a server that is gone.
func TestNobodyAnswersAHookWithoutTimeout(t *testing.T) {
	t.Parallel()
	l := listenLocal(t, "127.0.0.1:0")
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFake(t, fakeruntime.Options{})
	e, _ := newCourier(t, logrus.InfoLevel)
	r := f.owed(journal.Hook{HTTPGet: getOf(t, "http://"+address)})
	r.Hook.Timeout, r.Hook.Backoff = 0, 500*time.Millisecond
	began := time.Now()
	done := e.deliver(t.Context(), f, r)
	if took := time.Since(began); done.State != journal.Failed || took < refusedFor || took > 2*refusedFor {
		t.Errorf("it was %s after %s (%s)", done.State, took, done.Error)
	}
}
