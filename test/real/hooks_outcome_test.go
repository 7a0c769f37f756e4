package real_test

import (
	"cmp"
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// rowsTogether is how many rows are played at one time: most of the time they wait.
const rowsTogether = 6

// mostTook is far from the minute that a hook which hangs would take, and from
// what the machine takes when it is busy.
const mostTook = 20 * time.Second

// hookOutcome is what came of a row.
type hookOutcome struct {
	err     error // of what was needed to play it
	answer  error // of the start or the stop that the hook belongs to
	took    time.Duration
	records []hookRecord
	status  *runtimeapi.ContainerStatus // from the containerd
	written string                      // by the hook
	printed string                      // by the container's server
}

// testHookTable plays all rows and looks at each from outside: at the files that
// its hook wrote, at its container in the containerd, and at what the proxy tells.
func testHookTable(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	rows, config := hookRows(), []string{"[handlers.runc.hooks]\nallow_pod_hooks = true\n"}
	for _, r := range rows {
		if r.way == "node" {
			config = append(config, r.toml())
		}
	}
	h.serve(ctx, t, "table", "info", map[string]string{"runc": strings.Join(config, "")})
	annotation, err := podHooks(rows)
	if err != nil {
		t.Fatal(err)
	}
	pod := h.runPod(ctx, t, "runc", "table", func(c *runtimeapi.PodSandboxConfig) { c.Annotations[hooksAnnotation] = annotation })
	outcomes := pod.playAll(ctx, rows)
	wanted := map[string]int{}
	for i, r := range rows {
		t.Run(r.name(), func(t *testing.T) { r.judge(t, outcomes[i]) })
		if r.state != "running" {
			wanted[r.event+" "+r.state]++
		}
	}
	if got := h.hookMetrics(ctx, t, "runc"); !maps.Equal(got, wanted) {
		t.Errorf("the metrics count %v, want %v", got, wanted)
	}
	log := contentOf(h.proxy.Log)
	if !strings.Contains(log, "hook delivered") || strings.Contains(log, outputMark) {
		t.Errorf("the log should tell of hooks, and not what they printed:\n%s", log)
	}
	pod.remove(ctx, t)
}

func (p *hookPod) playAll(ctx context.Context, rows []hookRow) []hookOutcome {
	outcomes := make([]hookOutcome, len(rows))
	turns := make(chan struct{}, rowsTogether)
	var playing sync.WaitGroup
	for i, r := range rows {
		turns <- struct{}{}
		playing.Go(func() {
			defer func() { <-turns }()
			outcomes[i] = p.play(ctx, r)
		})
	}
	playing.Wait()
	return outcomes
}

// play starts a container and, for a PreStop, stops it.
func (p *hookPod) play(ctx context.Context, r hookRow) (o hookOutcome) {
	ctx, cancel := context.WithTimeout(ctx, 2*mostTook)
	defer cancel()
	config, err := p.container(r.name(), r.command()...)
	if err != nil {
		return hookOutcome{err: err}
	}
	id, err := p.create(ctx, config)
	if err != nil {
		return hookOutcome{err: err}
	}
	start := func() error {
		_, err := p.front.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
		return err
	}
	do := start
	if r.event == preStop {
		if err := start(); err != nil {
			return hookOutcome{err: err}
		}
		if err := p.awaitReady(ctx, r.name()); err != nil {
			return hookOutcome{err: err}
		}
		do = func() error { return p.stop(ctx, id, r.graceSeconds()) }
	}
	var dying sync.WaitGroup
	if r.dies {
		dying.Go(func() { o.err = p.endPast(ctx, id, r) })
	}
	began := time.Now()
	o.answer = do()
	o.took = time.Since(began)
	dying.Wait()
	p.look(ctx, r, id, &o)
	return o
}

// endPast kills a container while its hook runs, past the proxy.
func (p *hookPod) endPast(ctx context.Context, id string, r hookRow) error {
	err := p.awaitRecord(ctx, id, r.hook(), "running")
	if err == nil && r.seen != "" {
		err = rig.Poll(ctx, func() error { return contains(p.written(r.name()), r.seen) })
	}
	_, stop := p.containerd.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
	return cmp.Or(err, stop)
}

// hook is the name of the row's hook: pods' have only their place.
func (r hookRow) hook() string {
	if r.way == "pod" {
		return "0"
	}
	return r.name()
}

// look collects what is left of a row.
func (p *hookPod) look(ctx context.Context, r hookRow, id string, o *hookOutcome) {
	recordErr := p.awaitRecord(ctx, id, r.hook(), r.state)
	var statusErr, listErr error
	if o.status, statusErr = p.status(ctx, id); r.kills() {
		o.status, statusErr = p.awaitEnd(ctx, id)
	}
	o.records, listErr = p.listed(ctx, id)
	o.err = cmp.Or(o.err, recordErr, statusErr, listErr)
	o.written, o.printed = p.written(r.name()), p.printed(r.name())
}

func (r hookRow) judge(t *testing.T, o hookOutcome) {
	t.Helper()
	if o.err != nil {
		t.Fatalf("%v; the answer was %v after %s", o.err, o.answer, o.took)
	}
	r.judgeAnswer(t, o)
	r.judgeContainer(t, o)
	want := hookRecord{
		State: r.state, Event: r.event, Hook: r.hook(), Source: r.way, Kind: r.kind(), Attempts: max(1, r.attempts), Error: r.why(),
	}
	if len(o.records) == 1 {
		want.ID, want.Container = o.records[0].ID, o.records[0].Container
		if before, _, ok := strings.Cut(o.records[0].Error, "; before: "); ok { // Its server did not listen at first.
			o.records[0].Error = before
		}
	}
	if len(o.records) != 1 || o.records[0] != want {
		t.Errorf("the records are %+v\nwant one: %+v", o.records, want)
	}
	switch {
	case r.path == "" && r.seen != "" && o.written != r.seen:
		t.Errorf("the hook wrote %q, want %q", o.written, r.seen)
	case r.path != "" && r.seen != "" && !strings.Contains(o.printed, r.seen+" "+want.ID):
		t.Errorf("the server printed %q, want %q of the delivery %q", o.printed, r.seen, want.ID)
	}
}

func (r hookRow) judgeAnswer(t *testing.T, o hookOutcome) {
	t.Helper()
	failed := o.answer != nil && strings.Contains(o.answer.Error(), "FailedPostStartHook")
	if failed != r.kills() || o.answer != nil && !failed {
		t.Errorf("the answer: %v, want FailedPostStartHook: %t", o.answer, r.kills())
	}
	if o.took < r.least || o.took > mostTook {
		t.Errorf("it took %s, want from %s to %s", o.took, r.least, mostTook)
	}
}

// judgeContainer looks at the state and, by the exit code, at how it ended: told
// to, which is 0, or killed.
func (r hookRow) judgeContainer(t *testing.T, o hookOutcome) {
	t.Helper()
	state, code := runtimeapi.ContainerState_CONTAINER_RUNNING, int32(0)
	if r.event == preStop || r.kills() || r.dies {
		state = runtimeapi.ContainerState_CONTAINER_EXITED
	}
	if r.dies {
		code = 137
	}
	if o.status.GetState() != state || o.status.GetExitCode() != code {
		t.Errorf("the container is %s with %d, want %s with %d", o.status.GetState(), o.status.GetExitCode(), state, code)
	}
}

func (r hookRow) kind() string {
	switch {
	case r.exec != nil:
		return "exec"
	case r.path != "":
		return "httpGet"
	default:
		return "sleep"
	}
}
