package main

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

const (
	// arriveLate is what a hook may take from the proxy to the ledger.
	arriveLate = 500 * time.Millisecond
	// stopLate is what a proxy that serves may take beyond a deadline.
	stopLate = 2 * time.Second
)

// check looks at what came of each pod, from outside of the proxy.
func (n *killNode) check() {
	n.t.Helper()
	stops := map[string]time.Time{} // The first call to stop a container that reached the runtime.
	for _, call := range n.fake.Calls("StopContainer") {
		if q, ok := call.Request.(*runtimeapi.StopContainerRequest); ok && stops[q.GetContainerId()].IsZero() {
			stops[q.GetContainerId()] = call.Received
		}
	}
	if size := killSizes(); len(n.pods) != size.pods {
		n.t.Errorf("%d pods ran, want %d", len(n.pods), size.pods)
	}
	deliveries := map[string]owed{}
	for _, p := range n.pods {
		n.checkIDs(p, deliveries)
		n.checkStarted(p)
		if stops[p.id].IsZero() {
			n.t.Errorf("pod %d: the runtime was never asked to stop its container", p.number)
			continue
		}
		n.checkStopped(p, stops[p.id])
	}
}

// checkIDs: a hook has one delivery id, which no other has.
func (n *killNode) checkIDs(p *killedPod, deliveries map[string]owed) {
	n.t.Helper()
	for _, event := range []journal.Event{journal.PostStart, journal.PreStop} {
		hook := p.owes(event, "tell")
		all := n.of(hook)
		for _, a := range all {
			if a.delivery == "" || a.delivery != all[0].delivery {
				n.t.Errorf("pod %d: the %s came as delivery %q, and as %q", p.number, hook, all[0].delivery, a.delivery)
			}
			if other, ok := deliveries[a.delivery]; ok && other != hook {
				n.t.Errorf("delivery %q is that of the %s, and of the %s", a.delivery, hook, other)
			}
			deliveries[a.delivery] = hook
		}
	}
}

// checkStarted: each PostStart was delivered, and none behind one that failed.
func (n *killNode) checkStarted(p *killedPod) {
	n.t.Helper()
	for _, name := range []string{"tell", "run"} {
		hook := p.owes(journal.PostStart, name)
		switch came := n.of(hook); {
		case p.manner != doomed && !n.isDone(hook):
			n.t.Errorf("pod %d: LOST: the %s came %d times, and was never answered well", p.number, hook, len(came))
		case p.manner == doomed && name == "tell" && len(came) < 3, p.manner == doomed && name == "run" && len(came) > 0:
			n.t.Errorf("pod %d: the %s came %d times", p.number, hook, len(came))
		}
	}
}

// checkStopped: each PreStop was delivered before the runtime was asked to stop the
// container, unless the deadline had passed, and none came after that.
func (n *killNode) checkStopped(p *killedPod, stop time.Time) {
	n.t.Helper()
	first := time.Time{}
	for _, name := range []string{"tell", "run"} {
		hook := p.owes(journal.PreStop, name)
		if done := n.doneAt(hook); p.manner != hurried && (done.IsZero() || done.After(stop)) {
			n.t.Errorf("pod %d: LOST: the %s was answered well at %v, and the container stopped at %v", p.number, hook, done, stop)
		}
		for _, a := range n.of(hook) {
			if first.IsZero() {
				first = a.at // The stop was accepted before.
			}
			if a.at.After(first.Add(p.deadline() + arriveLate)) {
				n.t.Errorf("pod %d: the %s came %s after the first, with a grace of %s", p.number, hook, a.at.Sub(first), p.deadline())
			}
		}
	}
	if p.manner != hurried {
		return
	}
	if earliest := p.stopped.Add(p.deadline()); (first.IsZero() || first.After(stop)) && stop.Before(earliest) {
		n.t.Errorf("pod %d: LOST: no PreStop came before the stop, %s before the deadline", p.number, earliest.Sub(stop))
	}
	if late := stop.Sub(first.Add(p.deadline())) - n.down(first, stop); !first.IsZero() && late > stopLate {
		n.t.Errorf("pod %d: the stop came %s past the deadline, without the time in which there was no proxy", p.number, late)
	}
}

func (p *killedPod) deadline() time.Duration { return time.Duration(p.grace()) * time.Second }

// down is how long no proxy served between two moments.
func (n *killNode) down(from, to time.Time) time.Duration {
	down := to.Sub(from)
	for _, l := range n.lives {
		began, ended := l.began, l.ended
		if began.Before(from) {
			began = from
		}
		if ended.After(to) {
			ended = to
		}
		down -= max(0, ended.Sub(began))
	}
	return down
}
