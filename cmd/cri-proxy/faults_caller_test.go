package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// caller is one of many. It runs pods of its own, and looks at everybody's.
type caller struct {
	*loadNode
	rand *rand.Rand
	name string
	runs int
	own  []callersPod
	has  []string // Images that it pulled to where they stay.

	stretch int // By how much it is slower than its load says.
}

// mostStretch keeps a caller that is never answered from waiting for ever.
const mostStretch = 16

// call makes one call, a fifth of them to cancel it, and pauses. A caller that
// waits in vain comes less often and waits longer, so that a machine that is busy
// with something else still answers some.
func (c *caller) call(ctx context.Context, kind func(*caller, context.Context)) {
	patience := c.patience * time.Duration(c.stretch)
	cancels := c.rand.IntN(5) == 0
	if cancels {
		patience = time.Duration(c.rand.IntN(20)) * time.Millisecond
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kind(c, limited)
	switch {
	case cancels:
	case limited.Err() != nil:
		c.stretch = min(2*c.stretch, mostStretch)
	default:
		c.stretch = max(1, c.stretch/2)
	}
	pauseFor(ctx, time.Duration(c.rand.Int64N(int64(c.pause)))*time.Duration(c.stretch))
}

// callersPod is a pod whose creation was answered.
type callersPod struct {
	name, handler string
	ids           []string // The sandbox and its container.
	wipes         int      // Those that had begun before it was created.
}

// byID looks at an object that is there all the time, or at one of its own.
func (c *caller) byID(ctx context.Context) {
	id, lost := c.untouched[c.rand.IntN(len(c.untouched))], func() bool { return false }
	if len(c.own) > 0 && c.rand.IntN(2) == 0 {
		p := c.own[c.rand.IntN(len(c.own))]
		id, lost = p.ids[c.rand.IntN(len(p.ids))], func() bool { return c.wiped(p) }
	}
	var err error
	if _, ok := c.daemon.index.ContainerOwner([]byte(id)); ok {
		_, err = c.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	} else {
		_, err = c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	}
	c.saw("ids", err, lost())
}

// saw notes an answer. Whatever goes on, nothing is denied that exists: that was
// not lost.
func (c *caller) saw(kind string, err error, lost bool) bool {
	switch code := c.tally.add(kind, err); code {
	case codes.OK:
		return true
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
	default:
		if !lost || code != codes.NotFound {
			c.t.Errorf("%s: %v", kind, err)
		}
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
	if !c.saw("lists", err, false) {
		return
	}
	want := slices.Clone(c.untouched)
	for _, p := range c.own {
		if !c.wiped(p) {
			want = append(want, p.ids...)
		}
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
	for _, id := range want {
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
	p := callersPod{name: fmt.Sprintf("%s-%d", c.name, c.runs), handler: c.names[c.all[c.rand.IntN(len(c.all))]].handler}
	c.mu.Lock()
	p.wipes = c.wipes
	c.mu.Unlock()
	ran, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig(p.name), RuntimeHandler: p.handler})
	if !c.saw("creates", err, false) {
		return
	}
	p.ids = []string{ran.GetPodSandboxId()}
	created, err := c.runtime.CreateContainer(ctx, createRequest(ran.GetPodSandboxId(), p.name, "c", "app"))
	if c.saw("creates", err, c.wiped(p)) {
		p.ids = append(p.ids, created.GetContainerId())
		_, err = c.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()})
		c.saw("starts", err, c.wiped(p))
	}
	c.own = append(c.own, p)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range p.ids {
		c.home[id] = p.handler
	}
}

// remove removes all of its pods. One whose removal was not answered may be
// there or not, and is no longer looked for.
func (c *caller) remove(ctx context.Context) {
	for _, p := range c.own {
		if _, err := c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.ids[0]}); c.saw("removes", err, c.wiped(p)) {
			c.mu.Lock()
			for _, id := range p.ids {
				c.gone[id] = true
			}
			c.mu.Unlock()
		}
	}
	c.own = nil
}

// events reads events for a moment.
func (c *caller) events(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.rand.IntN(200))*time.Millisecond)
	defer cancel()
	up, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	for err == nil {
		_, err = up.Recv()
	}
	c.saw("event streams", err, false)
}
