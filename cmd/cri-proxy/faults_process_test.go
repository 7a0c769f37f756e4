package main

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestProcessUnderLoad: the proxy is stopped, or killed, and started again while
// callers go on. What it answered was true, and the next one knows every id.
func TestProcessUnderLoad(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*process){"stopped": func(p *process) { p.stop() }, "killed": (*process).kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, beta := alpha(t), fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
			beta.AddImage("app", nil)
			fake.FillHandler("runc", 20, 2)
			beta.FillHandler("isolated", 20, 2)
			n := newNode(t, fake, `backends.beta.endpoint = "`+beta.Endpoint()+`"`, `handlers.isolated.backend = "beta"`)
			p := n.start()
			p.serving()
			conn, err := rawcri.Dial(filepath.Join(n.dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { closeOf(t, conn.Close) }()
			l := &processLoad{t: t, client: runtimeapi.NewRuntimeServiceClient(conn), want: sorted(append(idsOf(fake), idsOf(beta)...)...)}
			record(t, "the proxy "+name+" and started again under load, 3 times", l.tally.String, "lists whole or errors, ids at their owners, creates once")
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for i := range 20 {
				callers.Go(func() { l.call(ctx, i) })
			}
			for range 3 {
				l.progress(ctx)
				end(p)
				p = n.start()
				p.serving()
			}
			l.progress(ctx)
			cancel()
			callers.Wait()
			l.checkJournals(fake, beta)
			p.stop()
		})
	}
}

// processLoad are callers of a proxy that comes and goes.
type processLoad struct {
	t      *testing.T
	client runtimeapi.RuntimeServiceClient
	want   []string // What every list must have.
	tally  tally
}

func (l *processLoad) call(ctx context.Context, number int) {
	for i := number; ctx.Err() == nil; i++ {
		limited, cancel := context.WithTimeout(ctx, callTime)
		switch i % 3 {
		case 0, 1:
			ids, err := objectsOf(limited, l.client, i%3 == 1)
			if l.tally.add("lists", err) != codes.OK {
				break
			}
			for _, id := range l.want {
				if !slices.Contains(ids, id) {
					l.t.Errorf("a list of %d, a success, is without %s", len(ids), id)
				}
			}
		case 2:
			l.pod(limited, number*1_000_000+i)
		}
		cancel()
		pauseFor(ctx, 30*time.Millisecond)
	}
}

// pod runs a pod on beta and looks at it.
func (l *processLoad) pod(ctx context.Context, number int) {
	config := sandboxConfig("pod" + time.Duration(number).String())
	ran, err := l.client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "isolated"})
	if l.tally.add("creates", err) != codes.OK {
		return
	}
	_, err = l.client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: ran.GetPodSandboxId()})
	if l.tally.add("ids", err) == codes.NotFound {
		l.t.Errorf("a pod that was just made: %v", err)
	}
}

// progress waits until the callers have had some more answers.
func (l *processLoad) progress(ctx context.Context) {
	l.t.Helper()
	answered := func() int {
		l.tally.mu.Lock()
		defer l.tally.mu.Unlock()
		return min(l.tally.seen["lists"][codes.OK], l.tally.seen["ids"][codes.OK])
	}
	enough := answered() + 5
	eventually(l.t, "the callers are served", func() bool { return answered() >= enough || ctx.Err() != nil })
}

// checkJournals: alpha never heard of a pod or of an id that is beta's.
func (l *processLoad) checkJournals(alpha, beta *fakeruntime.Runtime) {
	l.t.Helper()
	for _, method := range []string{"RunPodSandbox", "PodSandboxStatus"} {
		if calls := alpha.Calls(method); len(calls) > 0 {
			l.t.Errorf("%d calls of %s reached the wrong backend", len(calls), method)
		}
	}
	ran := map[string]bool{}
	for _, call := range beta.Calls("RunPodSandbox") {
		if ran[string(call.Raw)] {
			l.t.Error("a pod was created twice")
		}
		ran[string(call.Raw)] = true
	}
}
