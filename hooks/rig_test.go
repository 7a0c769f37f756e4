package hooks

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const handlerName = "gvisor"

// rig is an engine on a state file and a runtime, which can crash and come back.
type rig struct {
	*Engine

	t       *testing.T
	dir     string
	hooks   configs.Hooks
	client  runtimeapi.RuntimeServiceClient
	began   time.Time
	bootID  string
	metrics *prometheus.Registry
	store   *state.Store
	end     context.CancelFunc
	ended   sync.WaitGroup

	mu     sync.Mutex
	fault  func(state.Point) error
	events []string
}

// newRig starts an engine that ends with the test.
func newRig(t *testing.T, hooks configs.Hooks, client runtimeapi.RuntimeServiceClient) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), hooks: hooks, client: client, began: time.Now(), bootID: "boot-1"}
	r.start()
	t.Cleanup(func() { r.crash() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	log := logrus.NewEntry(logger)
	var err error
	if r.store, err = state.Open(r.t.Context(), state.Options{Dir: r.dir, Log: log, Fault: r.strike}); err != nil {
		r.t.Fatal(err)
	}
	r.metrics = prometheus.NewRegistry()
	r.Engine, err = New(Options{
		Handlers: map[string]configs.Handler{handlerName: {Hooks: r.hooks}, "plain": {}},
		Journal:  journal.New(r.store, nil),
		Clock:    Clock{Boot: func() time.Duration { return time.Since(r.began) }, BootID: r.bootID},
		Backend: func(context.Context, Container) (runtimeapi.RuntimeServiceClient, error) {
			return r.client, nil
		},
		NodeIP:     func() string { return "127.0.0.1" },
		Warn:       r.warn,
		Registerer: r.metrics,
		Log:        log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	r.end = cancel
	engine := r.Engine
	r.ended.Go(func() {
		if err := engine.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
}

// crash ends the engine with all that it has in memory. A second one in a row does nothing.
func (r *rig) crash() {
	r.t.Helper()
	if r.store == nil {
		return
	}
	r.end()
	r.ended.Wait()
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
	r.store = nil
}

func (r *rig) restart() {
	r.t.Helper()
	r.crash()
	r.setFault(nil)
	r.start()
}

func (r *rig) setFault(fault func(state.Point) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

func (r *rig) strike(p state.Point) error {
	r.mu.Lock()
	fault := r.fault
	r.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(p)
}

func (r *rig) warn(_ journal.Pod, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, reason+": "+message)
}

func (r *rig) warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// states are the hooks in the journal by name.
func (r *rig) states() map[string]journal.State {
	r.t.Helper()
	all, unreadable, err := r.Journal.Records()
	if err != nil || unreadable > 0 {
		r.t.Fatalf("%d records cannot be read (%v)", unreadable, err)
	}
	got := map[string]journal.State{}
	for _, record := range all {
		got[record.Hook.Name] = record.State
	}
	return got
}

func (r *rig) wantStates(want map[string]journal.State) {
	r.t.Helper()
	if got := r.states(); !maps.Equal(got, want) {
		r.t.Errorf("the journal says %v, want %v", got, want)
	}
}

// clean fails unless nothing is left to be done.
func (r *rig) clean() {
	r.t.Helper()
	open, err := r.Journal.Unfinished()
	containers, containersErr := r.Journal.Containers()
	if err := errors.Join(err, containersErr); err != nil || len(open)+len(containers) > 0 {
		r.t.Errorf("left over: %v %v (%v)", open, containers, err)
	}
}

func container(id string) Container {
	return Container{ID: id, Sandbox: sandboxID, Handler: handlerName}
}

func exec(name, command string) configs.Hook {
	return configs.Hook{
		Name: name, Exec: &configs.ExecHook{Command: strings.Fields(command)},
		Timeout: configs.Duration{Duration: time.Hour}, Attempts: 1, Backoff: configs.Duration{Duration: 100 * time.Millisecond},
	}
}

func postStart(h configs.Hook, wait bool, onFailure string) configs.PostStartHook {
	return configs.PostStartHook{Hook: h, Wait: wait, OnFailure: onFailure}
}

// timed runs a test on an engine with the double, in time that costs nothing.
func timed(t *testing.T, hooks configs.Hooks, test func(t *testing.T, r *rig, d *double)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDouble()
		test(t, newRig(t, hooks, d), d)
	})
}

// begin calls fn in the background; the returned function waits for its error.
func begin(fn func() error) func() error {
	result := make(chan error, 1)
	go func() { result <- fn() }()
	return func() error { return <-result }
}

// after lets d pass under synctest.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test is over")
	}
	synctest.Wait()
}

func wantNotes(t *testing.T, d *double, want ...string) {
	t.Helper()
	if got := d.all(); !slices.Equal(got, want) {
		t.Errorf("what happened:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
