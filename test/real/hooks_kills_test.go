package real_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// killGrace is that of the stops; a drain takes up to drainTime of it.
	killGrace = 10
	drainTime = 200 * time.Millisecond
)

// killHooks are a request to the test and a command, at each event.
const killHooks = `[[handlers.runc.hooks.post_start]]
name = "register"
http_get = { host = "127.0.0.1", port = %[1]d, path = "/" }
[[handlers.runc.hooks.post_start]]
name = "note"
exec = { command = ["/bin/append", "/hooks/log", "PostStart"] }
[[handlers.runc.hooks.pre_stop]]
name = "drain"
http_get = { host = "127.0.0.1", port = %[1]d, path = "/" }
[[handlers.runc.hooks.pre_stop]]
name = "note"
exec = { command = ["/bin/append", "/hooks/log", "PreStop"] }
`

// arrival is one request of a hook.
type arrival struct {
	container, event, delivery string

	at time.Time
}

// receiver counts what arrives, and takes its time to answer.
type receiver struct {
	random func(time.Duration) time.Duration

	mu       sync.Mutex
	arrivals []arrival
}

func (r *receiver) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.arrivals = append(r.arrivals, arrival{
		container: request.Header.Get("X-Cri-Proxy-Container-Id"), event: request.Header.Get("X-Cri-Proxy-Event"),
		delivery: request.Header.Get("X-Cri-Proxy-Delivery-Id"), at: time.Now(),
	})
	answer := r.random(drainTime)
	r.mu.Unlock()
	select {
	case <-time.After(answer):
	case <-request.Context().Done():
	}
}

func (r *receiver) of(container, event string) []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.arrivals), func(a arrival) bool { return a.container != container || a.event != event })
}

// listen serves on a port of the loopback interface until the test ends.
func (r *receiver) listen(ctx context.Context, t *testing.T) (port int) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := cmp.Or(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%s has no port", listener.Addr())
	}
	return address.Port
}

// killed is one container of the test.
type killed struct {
	name, id string

	startKills, stopKills int       // of the proxy, while it started or stopped
	stopped               time.Time // the first call
	settled               time.Time // the last one's beginning
}

// kills are what the test that kills the proxy counts.
type kills struct {
	*hookPod

	receiver *receiver
	random   func(time.Duration) time.Duration
	spans    map[string]time.Duration // how long an event takes, to kill within it
	count    int
	replaced int // containers that ended with a start that was cut off
}

// testKills kills the proxy at random instants while containers start and stop,
// and acts as the kubelet, which repeats calls that failed. Every hook must have
// arrived at least once at the end, and none after its grace period.
func testKills(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	containers := 20
	if isLong() {
		containers = 100
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	source := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // A test can repeat it.
	var mu sync.Mutex
	random := func(below time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(source.Int64N(int64(below)))
	}
	k := &kills{receiver: &receiver{random: random}, random: random, spans: map[string]time.Duration{}}
	h.serve(ctx, t, "kills", "", map[string]string{"runc": fmt.Sprintf(killHooks, k.receiver.listen(ctx, t))})
	k.hookPod = h.runPod(ctx, t, "runc", "kills", nil)
	var all []*killed
	for i := range containers + 1 { // The first one only tells how long it takes.
		c := &killed{name: fmt.Sprintf("app-%d", i)}
		k.playKilled(ctx, t, c, i > 0)
		if t.Failed() {
			return
		}
		all = append(all, c)
	}
	k.judge(t, all[1:])
	k.remove(ctx, t)
}

// playKilled starts a container and stops it, with a kill in each.
func (k *kills) playKilled(ctx context.Context, t *testing.T, c *killed, kill bool) {
	t.Helper()
	k.startKilled(ctx, t, c, kill)
	if err := k.awaitReady(ctx, c.name); err != nil {
		t.Fatal(err)
	}
	k.wantSettled(ctx, t, c.id)
	c.stopped = time.Now()
	c.stopKills = k.during(ctx, t, preStop, k.instant(preStop, kill), func() error {
		c.settled = time.Now()
		return k.stop(ctx, c.id, killGrace)
	})
	k.wantSettled(ctx, t, c.id)
	s, err := k.awaitEnd(ctx, c.id)
	if err != nil || s.GetExitCode() != 0 {
		t.Errorf("%s is %s with %d (%v)\n%s", c.name, s.GetState(), s.GetExitCode(), err, k.logged(c.id))
	}
}

// startKilled starts a container that survives it. When the caller of StartContainer
// goes away at the wrong moment a containerd ends the container, and the kubelet
// makes another one.
func (k *kills) startKilled(ctx context.Context, t *testing.T, c *killed, kill bool) {
	t.Helper()
	name := c.name
	for try := range 10 {
		c.name = fmt.Sprintf("%s-%d", name, try)
		config, err := k.container(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if c.id, err = k.create(ctx, config); err != nil {
			t.Fatal(err)
		}
		// Later each time: a start that takes longer by now would never be survived.
		at := k.instant(postStart, kill) * time.Duration(try+1)
		c.startKills = k.during(ctx, t, postStart, at, func() error { return k.startAsKubelet(ctx, c.id) })
		s, err := k.status(ctx, c.id)
		if err != nil {
			t.Fatal(err)
		}
		if s.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			return
		}
		k.replaced++
		// Its process may live on all the same, and then nobody can remove it.
		if said, err := k.alpha.Ctr(ctx, "tasks", "delete", "--force", c.id); err != nil && !strings.Contains(err.Error(), "not found") {
			t.Errorf("%v: %s", err, said)
		}
	}
	t.Fatalf("%s: none of 10 containers survived its start", name)
}

// logged is what the proxies and the containerd said of a container.
func (k *kills) logged(container string) string {
	var lines strings.Builder
	for _, file := range []string{k.proxy.Log, filepath.Join(k.Dir, k.alpha.Name+".log")} {
		for line := range strings.Lines(contentOf(file)) {
			if strings.Contains(line, container) {
				lines.WriteString(line)
			}
		}
	}
	return lines.String()
}

// instant is when to kill the proxy in an event; below 0 is not at all.
func (k *kills) instant(event string, kill bool) time.Duration {
	if !kill {
		return -1
	}
	return k.random(k.spans[event])
}

// during makes a call, kills the proxy at an instant, and makes the call again
// until it succeeds. It returns how many calls the kill has cut off. Without a
// kill it tells how long the call takes.
func (k *kills) during(ctx context.Context, t *testing.T, event string, at time.Duration, call func() error) (cut int) {
	t.Helper()
	began := time.Now()
	answer := make(chan error, 1)
	go func() { answer <- call() }()
	if at < 0 {
		err := <-answer
		k.spans[event] = time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		return 0
	}
	select {
	case <-time.After(at):
	case <-ctx.Done():
	}
	k.count++
	if err := cmp.Or(k.proxy.Kill(), k.proxy.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	err := <-answer
	if err != nil {
		cut++
	}
	if err != nil {
		waitFor(ctx, t, call)
	}
	return cut
}

// startAsKubelet starts a container that is not started. Of one that runs the
// kubelet believes that all is well.
func (k *kills) startAsKubelet(ctx context.Context, id string) error {
	s, err := k.status(ctx, id)
	if err != nil || s.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING || s.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		return err
	}
	_, err = k.front.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

// wantSettled waits until nothing is owed to a container any more.
func (k *kills) wantSettled(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	waitFor(ctx, t, func() error {
		records, err := k.records(ctx, id)
		for _, r := range records {
			if r.State == "pending" || r.State == "running" {
				err = fmt.Errorf("%s %s is %s", r.Event, r.Hook, r.State)
			}
		}
		return err
	})
}

// judge counts from outside: what arrived at the test, and what commands wrote.
func (k *kills) judge(t *testing.T, containers []*killed) {
	t.Helper()
	for _, event := range []string{postStart, preStop} {
		cut, lost, late := 0, 0, 0
		repeats := map[string]map[int]int{"HTTP": {}, "exec": {}}
		for _, c := range containers {
			cut += map[string]int{postStart: c.startKills, preStop: c.stopKills}[event]
			arrived := k.receiver.of(c.id, event)
			wrote := strings.Count(k.written(c.name), event+"\n")
			lost += max(0, 1-len(arrived)) + max(0, 1-wrote)
			repeats["HTTP"][len(arrived)-1]++
			repeats["exec"][wrote-1]++
			if event == preStop && slices.ContainsFunc(arrived, c.isLate) {
				late++
			}
			if ids := slices.Compact(deliveries(arrived)); len(ids) > 1 {
				t.Errorf("%s of %s arrived under the ids %q", event, c.name, ids)
			}
		}
		t.Logf("%s: %d HTTP and %d exec hooks, %d of %d kills cut the call off, lost %d, past the grace period %d, containers by repeats: HTTP %s, exec %s",
			event, len(containers), len(containers), cut, len(containers), lost, late, distribution(repeats["HTTP"]), distribution(repeats["exec"]))
		if lost > 0 || late > 0 {
			t.Errorf("%s: lost %d, past the grace period %d", event, lost, late)
		}
		if cut == 0 {
			t.Errorf("%s: no kill hit a call", event)
		}
	}
	t.Logf("%d kills in all; %d containers were replaced: the containerd ended them when their start was cut off", k.count, k.replaced)
	if k.count != 2*len(containers)+k.replaced {
		t.Errorf("the proxy was killed %d times", k.count)
	}
}

// isLate reports whether a request came after the grace period and the time for
// which the proxy was away.
func (c *killed) isLate(a arrival) bool {
	return a.at.Sub(c.stopped) > killGrace*time.Second+c.settled.Sub(c.stopped)
}

func deliveries(arrivals []arrival) []string {
	ids := make([]string, 0, len(arrivals))
	for _, a := range arrivals {
		ids = append(ids, a.delivery)
	}
	return ids
}

// distribution is how many containers have which count.
func distribution(counts map[int]int) string {
	var shown []string
	for _, count := range slices.Sorted(maps.Keys(counts)) {
		shown = append(shown, fmt.Sprintf("%d×: %d", count, counts[count]))
	}
	return strings.Join(shown, ", ")
}
