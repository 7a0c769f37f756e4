package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const (
	loadCallers = 200
	loadTime    = 3 * time.Second // At least: until enough calls of each kind succeeded.
	loadSeed    = 20260101
)

// loadNode is a proxy before two fakes with pods that no caller touches, and what
// all callers share.
type loadNode struct {
	*faultNode
	untouched []string // Objects that every list must have.

	mu   sync.Mutex
	gone map[string]bool   // Ids whose removal was answered.
	home map[string]string // Id → handler, of all that were created.
}

func newLoadNode(t *testing.T, pods int) *loadNode {
	t.Helper()
	n := &loadNode{faultNode: newFaultNode(t), gone: map[string]bool{}, home: map[string]string{}}
	n.config = strings.ReplaceAll(n.config, `list_timeout = "500ms"`, `list_timeout = "2s"`)
	n.alpha.FillHandler("runc", pods/2, 5)
	n.beta.FillHandler("isolated", pods/2, 5)
	n.restart()
	n.untouched = n.truth()
	return n
}

// caller is one of many. It runs pods of its own, and looks at everybody's.
type caller struct {
	*loadNode
	rand *rand.Rand
	name string
	runs int
	own  [][]string // Of each pod the sandbox and its container.
}

// load runs all callers until the time is over.
func (n *loadNode) load(ctx context.Context, callers int, kinds []func(*caller, context.Context)) {
	var all sync.WaitGroup
	for i := range callers {
		c := &caller{loadNode: n, name: fmt.Sprintf("caller%d", i), rand: rand.New(rand.NewPCG(loadSeed, uint64(i)))}
		all.Go(func() {
			for ctx.Err() == nil {
				patience := callTime
				if c.rand.IntN(5) == 0 { // Callers that cancel.
					patience = time.Duration(c.rand.IntN(20)) * time.Millisecond
				}
				limited, cancel := context.WithTimeout(ctx, patience)
				kinds[c.rand.IntN(len(kinds))](c, limited)
				cancel()
				pauseFor(ctx, time.Duration(c.rand.IntN(400))*time.Millisecond)
			}
		})
	}
	all.Wait()
}

// byID looks at an object that is there all the time.
func (c *caller) byID(ctx context.Context) {
	id := c.untouched[c.rand.IntN(len(c.untouched))]
	var err error
	if _, ok := c.daemon.index.ContainerOwner([]byte(id)); ok {
		_, err = c.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	} else {
		_, err = c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	}
	c.saw("ids", err)
}

// saw notes an answer. Whatever goes on, nothing that exists is denied.
func (c *caller) saw(kind string, err error) bool {
	switch code := c.tally.add(kind, err); code {
	case codes.OK:
		return true
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
	default:
		c.t.Errorf("%s: %v", kind, err)
	}
	return false
}

// list looks whether a list has all that nobody touches and all that this
// caller runs, nothing that was removed before, and nothing twice.
func (c *caller) list(ctx context.Context) {
	streamed := c.rand.IntN(2) == 0
	c.mu.Lock()
	gone := make(map[string]bool, len(c.gone))
	for id := range c.gone {
		gone[id] = true
	}
	c.mu.Unlock()
	ids, err := objectsOf(ctx, c.runtime, streamed)
	if !c.saw("lists", err) {
		return
	}
	listed := make(map[string]bool, len(ids))
	for _, id := range ids {
		if listed[id] {
			c.t.Errorf("%s is listed twice", id)
		}
		if gone[id] {
			c.t.Errorf("%s was removed, and is listed (streamed: %t)", id, streamed)
		}
		listed[id] = true
	}
	for _, id := range slices.Concat(c.untouched, slices.Concat(c.own...)) {
		if !listed[id] {
			c.t.Errorf("%s is missing from a list of %d that is a success (streamed: %t, its own: %t)", id, len(ids), streamed, !slices.Contains(c.untouched, id))
		}
	}
}

// pod creates a pod, sometimes looks at it, and removes an older one.
func (c *caller) pod(ctx context.Context) {
	if len(c.own) >= 2 {
		c.remove(ctx)
		return
	}
	c.runs++
	name, handler := fmt.Sprintf("%s-%d", c.name, c.runs), []string{"runc", "isolated"}[c.rand.IntN(2)]
	ran, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig(name), RuntimeHandler: handler})
	if !c.saw("creates", err) {
		return
	}
	pod := []string{ran.GetPodSandboxId()}
	created, err := c.runtime.CreateContainer(ctx, createRequest(ran.GetPodSandboxId(), name, "c", "app"))
	if c.saw("creates", err) {
		pod = append(pod, created.GetContainerId())
		_, err = c.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()})
		c.saw("starts", err)
	}
	c.own = append(c.own, pod)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range pod {
		c.home[id] = handler
	}
}

// remove removes all of its pods. One whose removal was not answered may be
// there or not, and is no longer looked for.
func (c *caller) remove(ctx context.Context) {
	for _, p := range c.own {
		if _, err := c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p[0]}); c.saw("removes", err) {
			c.mu.Lock()
			for _, id := range p {
				c.gone[id] = true
			}
			c.mu.Unlock()
		}
	}
	c.own = nil
}

// image makes a call about an image.
func (c *caller) image(ctx context.Context) {
	spec := &runtimeapi.ImageSpec{Image: "app", Annotations: sandboxConfig(c.name).GetAnnotations()}
	if c.rand.IntN(2) == 0 {
		_, err := c.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		c.saw("images", err)
		return
	}
	_, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	c.saw("images", err)
}

// events reads events for a moment.
func (c *caller) events(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.rand.IntN(200))*time.Millisecond)
	defer cancel()
	up, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	for err == nil {
		_, err = up.Recv()
	}
	c.saw("event streams", err)
}

// chaos lets one fault after the other come and go until ctx ends.
func (n *loadNode) chaos(ctx context.Context) {
	dice := rand.New(rand.NewPCG(loadSeed, 0xfa17))
	lost := status.Error(codes.Unavailable, "the fake is dying")
	for ctx.Err() == nil {
		r := n.fakes()[dice.IntN(2)]
		switch dice.IntN(6) {
		case 0:
			r.Restart()
		case 1:
			r.Stop()
			pauseFor(ctx, time.Duration(dice.IntN(300))*time.Millisecond)
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
		pauseFor(ctx, time.Duration(dice.IntN(300))*time.Millisecond)
		r.ClearFaults()
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// TestFaultsUnderLoad: many callers of all kinds, while the backends restart,
// hang and drop connections at random; and few that list 5,000 containers.
//
//nolint:paralleltest // It counts the goroutines and descriptors of the whole process.
func TestFaultsUnderLoad(t *testing.T) {
	mixed := []func(*caller, context.Context){
		(*caller).byID, (*caller).byID, (*caller).byID, (*caller).list, (*caller).pod, (*caller).pod, (*caller).image, (*caller).events,
	}
	for _, tt := range []struct{ callers, pods int }{{200, 40}, {4, 1000}} {
		t.Run(fmt.Sprintf("%d callers", tt.callers), func(t *testing.T) {
			before := usage(t)
			saw := ""
			record(t, fmt.Sprintf("backends restart, hang and drop connections at random (seed %d): %d mixed callers, %d containers, a fifth of the calls is cancelled", loadSeed, tt.callers, tt.pods*5),
				func() string { return saw }, allInvariants)
			t.Cleanup(func() { wantUsage(t, before) })
			n := newLoadNode(t, tt.pods)
			ctx, cancel := context.WithTimeout(t.Context(), 10*loadTime)
			defer cancel()
			var chaos sync.WaitGroup
			chaos.Go(func() { n.chaos(ctx) })
			chaos.Go(func() {
				defer cancel()
				pauseFor(ctx, loadTime)
				for ctx.Err() == nil && n.thin() != "" {
					pauseFor(ctx, loadTime/10)
				}
			})
			n.load(ctx, tt.callers, mixed)
			chaos.Wait()
			saw = n.tally.String()
			if kind := n.thin(); kind != "" {
				t.Errorf("too few %s succeeded for this test to show anything: %s", kind, saw)
			}
			for id, handler := range n.home {
				n.owner[id] = map[string]*fakeruntime.Runtime{"runc": n.alpha, "isolated": n.beta}[handler]
			}
			n.removed = n.gone
			n.settle()
			n.check()
			for id := range n.gone {
				if slices.Contains(n.before, id) {
					t.Errorf("%s was removed, and is there", id)
				}
			}
		})
	}
}

// thin returns a kind of call of which too few succeeded, "" if there is none.
func (n *loadNode) thin() string {
	n.tally.mu.Lock()
	defer n.tally.mu.Unlock()
	for _, kind := range []string{"lists", "ids", "creates"} {
		if n.tally.seen[kind][codes.OK] < 3 {
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
	eventually(n.t, "all backends are up", n.daemon.backends.AllUp)
}
