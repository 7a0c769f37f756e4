package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const (
	// The seconds of a stop. The longer one never ends here, whatever is killed.
	hurriedGrace, patientGrace = 1, 600
	// killPatience is how long something may take that kills delay.
	killPatience = time.Minute
)

// killSize is how many containers come and go. Each has two hooks for its start
// and two for its stop, but for the eighth part that is doomed or hurried.
type killSize struct{ kubelets, pods int }

func killSizes() killSize {
	if os.Getenv("FAULTS_TABLE") != "" && !testing.Short() {
		return killSize{kubelets: 10, pods: 288} // More than 500 hooks for each event.
	}
	return killSize{kubelets: 8, pods: 32} // More than 50.
}

// killNode is a node whose proxy, a process, is killed again and again. The
// kubelets, the runtime and the ledger are in this process.
type killNode struct {
	*ledger

	t      *testing.T
	fake   *fakeruntime.Runtime
	client runtimeapi.RuntimeServiceClient

	kills int
	lives []life

	mu   sync.Mutex
	pods []*killedPod // Those that are through.
}

// life is a time in which the proxy served.
type life struct{ began, ended time.Time }

// killedPod is what a kubelet knows of its container.
type killedPod struct {
	number  int
	manner  manner
	id      string
	stopped time.Time // The first call to stop it.
}

func (p *killedPod) owes(event journal.Event, hook string) owed { return owed{p.id, event, hook} }

func (p *killedPod) grace() int64 {
	if p.manner == hurried {
		return hurriedGrace
	}
	return patientGrace
}

// TestHooksKilled: kill -9 at random instants, again and again, while containers
// start and stop. Counted outside of the proxy no hook is lost, none comes under
// two ids or after its deadline, and no container is stopped before its hooks.
func TestHooksKilled(t *testing.T) {
	t.Parallel()
	size, saw := killSizes(), ""
	record(t, fmt.Sprintf("the proxy killed at random instants (seed %d), again and again, while %d containers with hooks come and go", loadSeed, size.pods),
		func() string { return saw }, "no hook lost, none under two ids or past its deadline, hooks before the stop of their container")
	n, configured := newKillNode(t)
	var kubelets sync.WaitGroup
	pods := make(chan int)
	for range size.kubelets {
		kubelets.Go(func() {
			for number := range pods {
				n.pod(number)
			}
		})
	}
	through := make(chan struct{})
	go func() {
		defer close(through)
		for number := 0; number < size.pods && !t.Failed(); number++ {
			pods <- number
		}
		close(pods)
		kubelets.Wait()
	}()
	n.killAgain(configured, through)
	saw = fmt.Sprintf("%d kills; %s", n.kills, n.ledger)
	t.Logf("seed %d: %s", loadSeed, saw)
	if n.kills < 5 {
		t.Error("too few kills for this test to show anything")
	}
	n.check()
}

func newKillNode(t *testing.T) (*killNode, *node) {
	t.Helper()
	l := newLedger(loadSeed)
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	fake := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}, Exec: l.exec})
	fake.AddImage("app", nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	tell := fmt.Sprintf(`{ name = "tell", attempts = 3, backoff = "20ms", timeout = "1m", http_get = { host = "127.0.0.1", port = %s, path = "/" } }`, port)
	run := `{ name = "run", exec = { command = [%q] }, timeout = "1m" }`
	configured := newNode(t, fake,
		"handlers.runc.hooks.post_start = ["+tell+", "+fmt.Sprintf(run, "up")+"]",
		"handlers.runc.hooks.pre_stop = ["+tell+", "+fmt.Sprintf(run, "down")+"]")
	conn, err := rawcri.Dial(configured.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOf(t, conn.Close) })
	return &killNode{ledger: l, t: t, fake: fake, client: runtimeapi.NewRuntimeServiceClient(conn)}, configured
}

// killAgain starts the proxy and kills it, until the kubelets are through: mostly
// some time after it began to serve, and sometimes before.
func (n *killNode) killAgain(configured *node, through <-chan struct{}) {
	n.t.Helper()
	dice := rand.New(rand.NewPCG(loadSeed, 1))
	for {
		p, isEarly := configured.start(), dice.IntN(4) == 0
		if !isEarly {
			p.serving()
			n.lives = append(n.lives, life{began: time.Now()})
		}
		isOver := false
		select {
		case <-time.After(time.Duration(dice.Int64N(int64(900 * time.Millisecond)))):
		case <-through:
			isOver = true
		}
		if !isEarly {
			n.lives[len(n.lives)-1].ended = time.Now()
		}
		p.kill()
		if isOver {
			return
		}
		n.kills++
	}
}

// pod is a kubelet that runs a pod and takes it down.
func (n *killNode) pod(number int) {
	p := &killedPod{number: number, manner: map[int]manner{5: abandoned, 6: hurried, 7: doomed}[number%8]}
	dice := rand.New(rand.NewPCG(loadSeed, 2+uint64(number)))
	ctx, cancel := context.WithTimeout(n.t.Context(), killPatience)
	defer cancel()
	n.create(ctx, p)
	n.setManner(p.id, p.manner)
	n.start(ctx, p)
	if p.manner != doomed {
		waiting, stopWaiting := context.WithTimeout(ctx, killPatience/4)
		n.wait(waiting, func() bool { return n.isStarted(p) }) // What is lost is told at the end.
		stopWaiting()
		pauseFor(ctx, time.Duration(dice.Int64N(int64(500*time.Millisecond))))
		n.stop(ctx, p)
	}
	for isRunning(n.t, n.fake, p.id) && ctx.Err() == nil {
		pauseFor(ctx, 20*time.Millisecond)
	}
	if ctx.Err() != nil {
		n.t.Errorf("pod %d: its container does not end within %s", number, killPatience)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods = append(n.pods, p)
}

func (n *killNode) isStarted(p *killedPod) bool {
	return n.isDone(p.owes(journal.PostStart, "tell")) && n.isDone(p.owes(journal.PostStart, "run"))
}

// try calls until there is an answer, as the kubelet does: anew for what may not
// have been done.
func try(ctx context.Context, call func() error) {
	for call() != nil && ctx.Err() == nil {
		pauseFor(ctx, 20*time.Millisecond)
	}
}

// create makes a pod with a container. What nobody was told of is left behind.
func (n *killNode) create(ctx context.Context, p *killedPod) {
	attempt := 0
	try(ctx, func() error {
		attempt++
		name := fmt.Sprintf("pod-%d-%d", p.number, attempt)
		ran, err := n.client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig(name), RuntimeHandler: "runc"})
		if err != nil {
			return err
		}
		made, err := n.client.CreateContainer(ctx, createRequest(ran.GetPodSandboxId(), name, "c", "app"))
		p.id = made.GetContainerId()
		return err
	})
}

// start starts the container, and asks what became of that when it failed.
func (n *killNode) start(ctx context.Context, p *killedPod) {
	try(ctx, func() error {
		_, err := n.client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: p.id})
		if err == nil {
			if !n.isStarted(p) {
				n.t.Errorf("pod %d: the start is answered before its hooks are delivered", p.number)
			}
			return nil
		}
		state := runtimeapi.ContainerState_CONTAINER_UNKNOWN
		try(ctx, func() error {
			answer, err := n.client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.id})
			state = answer.GetStatus().GetState()
			return err
		})
		if state == runtimeapi.ContainerState_CONTAINER_CREATED {
			return err // Once more.
		}
		return nil
	})
}

// stop stops the container, with the same time-out again when that failed.
func (n *killNode) stop(ctx context.Context, p *killedPod) {
	p.stopped = time.Now()
	if p.manner == abandoned {
		leaving, cancel := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			n.wait(leaving, func() bool { return len(n.of(p.owes(journal.PreStop, "tell"))) > 0 })
			cancel() // It was accepted.
		})
		defer watch.Wait()
		defer cancel()
		ctx = leaving
	}
	try(ctx, func() error {
		_, err := n.client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.id, Timeout: p.grace()})
		if code := status.Code(err); code != codes.OK && code != codes.Unavailable && code != codes.Canceled {
			n.t.Errorf("pod %d: the stop fails with %v", p.number, err)
		}
		return err
	})
}
