package main

import (
	"context"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/admin"
)

// TestReloadUnderLoad: 100 reloads, good and bad, while lists, ids, creates and
// the status are asked for all the time. No call fails, and no list lacks a pod.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	l := &reloadLoad{proxy: p}
	record(t, "the configuration reloaded under load, 100 times, good and bad, with backends and handlers that come and go",
		l.tally.String, "no call fails, lists whole, ids at their owners, events go on, a bad one changes nothing")
	alpha.FillHandler("runc", 20, 1)
	beta.FillHandler("isolated", 20, 1)
	p.restart()
	l.want = append(idsOf(alpha), idsOf(beta)...)
	for _, s := range append(alpha.Sandboxes(), beta.Sandboxes()...) {
		l.sandboxes = append(l.sandboxes, s.GetId())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for _, call := range []func(context.Context){l.list, l.list, l.byID, l.pods, l.status, l.events} {
		callers.Go(func() {
			for ctx.Err() == nil {
				call(ctx)
			}
		})
	}
	added, _ := third(t)
	hook := "[[handlers.isolated.hooks.pre_stop]]\nname = \"x\"\nexec = { command = [\"true\"] }\n"
	steps := []struct {
		config string
		good   bool
	}{
		{p.config + added, true},
		{p.config + added + "[handlers.more]\nbackend = \"gamma\"\nruntime = \"third\"\n" + hook, true},
		{p.config + "[handlers.bad]\nbackend = \"nobody\"\n", false},
		{strings.ReplaceAll(p.config, "[backends.beta]", "[backends.delta]"), false},
		{strings.ReplaceAll(p.config, `list_timeout = "1s"`, `list_timeout = "2s"`), true},
		{p.config, true},
	}
	for i := range 100 {
		step := steps[i%len(steps)]
		if err := p.reloadText(step.config); (err == nil) != step.good {
			t.Errorf("reload %d: %v", i, err)
		}
	}
	cancel()
	callers.Wait()
	if l.tally.seen["lists"][codes.OK] < 20 || l.tally.seen["creates"][codes.OK] < 5 {
		t.Errorf("too few calls to tell: %s", l.tally.String())
	}
}

// reloadLoad are callers while the configuration is reloaded.
type reloadLoad struct {
	*proxy
	want      []string // What every list must have.
	sandboxes []string
	tally     tally
}

// saw counts a call, which must not fail but by the end of the test.
func (l *reloadLoad) saw(ctx context.Context, kind string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if l.tally.add(kind, err) != codes.OK {
		l.t.Errorf("%s: %v", kind, err)
	}
	return err == nil
}

func (l *reloadLoad) list(ctx context.Context) {
	ids, err := objectsOf(ctx, l.runtime, false)
	if !l.saw(ctx, "lists", err) {
		return
	}
	have := map[string]bool{}
	for _, id := range ids {
		have[id] = true
	}
	for _, id := range l.want {
		if !have[id] {
			l.t.Errorf("a list of %d is without %s", len(ids), id)
		}
	}
}

func (l *reloadLoad) byID(ctx context.Context) {
	for _, id := range l.sandboxes {
		_, err := l.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		l.saw(ctx, "ids", err)
	}
}

func (l *reloadLoad) pods(ctx context.Context) {
	ran, err := l.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("load"), RuntimeHandler: "isolated"})
	if l.saw(ctx, "creates", err) {
		_, err = l.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: ran.GetPodSandboxId()})
		l.saw(ctx, "removes", err)
	}
}

func (l *reloadLoad) status(ctx context.Context) {
	_, err := l.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	l.saw(ctx, "statuses", err)
	_, err = l.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	l.saw(ctx, "image filesystems", err)
	_, err = admin.Get(ctx, l.dir+"/a", "/v1/status")
	l.saw(ctx, "admin", err)
}

// events reads a stream to its end, which is the test's.
func (l *reloadLoad) events(ctx context.Context) {
	events, err := l.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	for err == nil {
		if _, err = events.Recv(); err == nil {
			l.saw(ctx, "events", nil)
		}
	}
	l.saw(ctx, "event streams", err)
}
