package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const loadSeed = 20260101

// load is how much goes on at once, and how fast: more than the machine can do
// would show nothing but time-outs.
type load struct {
	callers, pods int           // Of five containers each.
	patience      time.Duration // Of a caller that does not cancel, and of the proxy with a list.
	pause         time.Duration // Of a caller between two calls, at most.
	lasting       time.Duration // At least: until enough calls of each kind succeeded.
}

// loadNode is a proxy before three fakes, and what all callers share. Two have
// pods that no caller touches; the third, gamma, loses all that it has at times.
type loadNode struct {
	*faultNode
	load
	gamma     *fakeruntime.Runtime
	untouched []string // Objects that every list must have.

	mu     sync.Mutex
	wipes  int               // How often gamma began to lose everything.
	gone   map[string]bool   // Ids whose removal was answered.
	home   map[string]string // Id → handler, of all that were created.
	pulled map[string]string // Image → handler, of all whose pull must be on that one's fake.
	landed map[string]bool   // Of these the images whose pull was answered.
}

func newLoadNode(t *testing.T, size load) *loadNode {
	t.Helper()
	n := &loadNode{load: size, gone: map[string]bool{}, home: map[string]string{}, pulled: map[string]string{}, landed: map[string]bool{}}
	n.gamma = fakeruntime.Start(t, fakeruntime.Options{Name: "gamma", Runtimes: []string{"sealed"}, UnknownField: true})
	n.faultNode = newFaultNodeWith(t, n.gamma)
	n.config = strings.ReplaceAll(n.config, `list_timeout = "500ms"`, fmt.Sprintf("list_timeout = %q", size.patience))
	n.alpha.FillHandler("runc", size.pods/2, 5)
	n.beta.FillHandler("isolated", size.pods/2, 5)
	for _, r := range n.fakes() {
		n.stock(r)
	}
	n.restart()
	n.untouched = append(idsOf(n.alpha), idsOf(n.beta)...)
	return n
}

// wipe starts gamma anew without any of its objects, as after a wiped disk.
func (n *loadNode) wipe() {
	n.mu.Lock()
	n.wipes++
	n.mu.Unlock()
	n.gamma.Stop()
	n.gamma.Reset()
	n.stock(n.gamma)
	n.gamma.Restart()
}

// wiped reports whether a pod may have been lost with all that gamma had.
func (n *loadNode) wiped(p callersPod) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return p.handler == n.names[n.gamma].handler && p.wipes != n.wipes
}

// newCallers makes all callers, with a pod each.
func (n *loadNode) newCallers() []*caller {
	n.t.Helper()
	callers := make([]*caller, n.callers)
	for i := range callers {
		callers[i] = &caller{loadNode: n, name: fmt.Sprintf("caller%d", i), rand: rand.New(rand.NewPCG(loadSeed, uint64(i))), stretch: 1}
		callers[i].pod(n.t.Context())
	}
	return callers
}

// runCallers lets all callers make calls until the time is over.
func runCallers(ctx context.Context, callers []*caller, kinds []func(*caller, context.Context)) {
	var all sync.WaitGroup
	for _, c := range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				c.call(ctx, kinds[c.rand.IntN(len(kinds))])
			}
		})
	}
	all.Wait()
}

// chaos lets one fault after the other come and go until ctx ends.
func (n *loadNode) chaos(ctx context.Context) {
	dice := rand.New(rand.NewPCG(loadSeed, 0xfa17))
	pause := int64(min(n.pause, 2*time.Second))
	lost := status.Error(codes.Unavailable, "the fake is dying")
	for step := 0; ctx.Err() == nil; step++ {
		if step%5 == 0 { // However short the run is.
			n.wipe()
		}
		r := n.fakes()[dice.IntN(len(n.all))]
		switch dice.IntN(6) {
		case 0:
			r.Restart()
		case 1:
			r.Stop()
			pauseFor(ctx, time.Duration(dice.Int64N(pause)))
			r.Restart()
		case 2:
			r.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true, Times: 1 + dice.IntN(100)})
		case 3:
			r.Inject("StreamContainers", fakeruntime.Fault{Drop: true, AfterFrames: 1 + dice.IntN(50), Times: 1})
		case 4:
			r.Inject("RunPodSandbox", fakeruntime.Fault{Drop: true, AfterEffect: dice.IntN(2) == 0, Times: 1})
		case 5:
			r.Inject("ListContainers", fakeruntime.Fault{Err: lost, Times: 2})
		}
		pauseFor(ctx, time.Duration(dice.Int64N(pause)))
		r.ClearFaults()
		pauseFor(ctx, time.Duration(dice.Int64N(pause))) // Some calls are to succeed.
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// loads are those of every day, and that of the long form.
func loads() []load {
	loads := []load{
		{callers: 200, pods: 40, patience: callTime, pause: 400 * time.Millisecond, lasting: 3 * time.Second},
		{callers: 40, pods: 200, patience: 3 * time.Second, pause: time.Second, lasting: 3 * time.Second},
	}
	if os.Getenv("FAULTS_TABLE") != "" && !testing.Short() {
		loads[1] = load{callers: 200, pods: 1000, patience: 20 * time.Second, pause: 16 * time.Second, lasting: time.Minute}
	}
	return loads
}

// TestFaultsUnderLoad: many callers of all kinds and many containers, while the
// backends restart, hang, drop connections, and one loses all it has, at random.
//
//nolint:paralleltest // It counts the goroutines and descriptors of the whole process.
func TestFaultsUnderLoad(t *testing.T) {
	for _, size := range loads() {
		name := fmt.Sprintf("%d mixed callers, %d containers", size.callers, size.pods*5)
		t.Run(name, func(t *testing.T) {
			before := usage(t)
			saw := ""
			record(t, fmt.Sprintf("three backends restart, hang and drop connections at random, one is emptied again and again (seed %d): %s, a fifth of the calls is cancelled", loadSeed, name),
				func() string { return saw }, allInvariants+"; NotFound only for what was emptied, images present where they are and nowhere else, their lists whole or errors, pulls in the pod's store")
			t.Cleanup(func() { wantUsage(t, before) })
			n := newLoadNode(t, size)
			n.underChaos()
			saw = n.tally.String() + fmt.Sprintf("; emptied %d times", n.wipes)
			if kind := n.thin(); kind != "" {
				t.Errorf("too few %s succeeded for this test to show anything: %s", kind, saw)
			}
			n.checkPulls()
			n.checkAll()
		})
	}
}

// underChaos lets the callers go on while faults come and go, until enough calls
// of each kind have succeeded.
func (n *loadNode) underChaos() {
	mixed := []func(*caller, context.Context){
		(*caller).byID, (*caller).byID, (*caller).byID, (*caller).list, (*caller).pod, (*caller).pod,
		(*caller).imageStatus, (*caller).imageStatus, (*caller).listImages, (*caller).pull, (*caller).events,
	}
	callers := n.newCallers()
	ctx, cancel := context.WithTimeout(n.t.Context(), n.lasting+2*time.Minute)
	defer cancel()
	var chaos sync.WaitGroup
	chaos.Go(func() { n.chaos(ctx) })
	chaos.Go(func() {
		defer cancel()
		pauseFor(ctx, n.lasting)
		for ctx.Err() == nil && n.thin() != "" {
			pauseFor(ctx, n.lasting/10)
		}
	})
	runCallers(ctx, callers, mixed)
	chaos.Wait()
}

// checkAll is check, with what the callers know.
func (n *loadNode) checkAll() {
	n.t.Helper()
	// What gamma lost belongs to nobody: calls for it may go to the default backend.
	maps.DeleteFunc(n.owner, func(_ string, r *fakeruntime.Runtime) bool { return r == n.gamma })
	for id, handler := range n.home {
		if r := n.fakeOf(handler); r != n.gamma {
			n.owner[id] = r
		}
	}
	n.removed = n.gone
	n.settle()
	n.check()
	for id := range n.gone {
		if slices.Contains(n.before, id) {
			n.t.Errorf("%s was removed, and is there", id)
		}
	}
}

// thin returns a kind of call of which too few succeeded, "" if there is none.
func (n *loadNode) thin() string {
	n.mu.Lock()
	wipes := n.wipes
	n.mu.Unlock()
	if wipes == 0 {
		return "wipes"
	}
	n.tally.mu.Lock()
	defer n.tally.mu.Unlock()
	for kind, least := range map[string]int{
		"lists": 3, "ids": 3, "creates": 3, "image lists": 3, "images of own pods": 10, "pulls": 3,
	} {
		if n.tally.seen[kind][codes.OK] < least {
			return kind
		}
	}
	return ""
}

// settle makes the proxy list the backends anew: of objects whose create nobody
// was told of it learns then, or when it is asked.
func (n *loadNode) settle() {
	n.t.Helper()
	for _, r := range n.fakes() {
		r.ClearFaults()
		r.Restart()
	}
	n.tally = tally{}
	eventually(n.t, "all backends are up", n.daemon.backends().AllUp)
}
