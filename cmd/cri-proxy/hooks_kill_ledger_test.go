package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// manner is how the hooks of a container are answered, and how it is stopped.
type manner int

const (
	patient   manner = iota // Answered well, some at the second time; whose stop is repeated until it succeeds.
	abandoned               // The same, but nobody asks again for a stop that was accepted.
	hurried                 // One second of grace, and a PreStop that is never answered.
	doomed                  // A PostStart that fails at each attempt, so that the container is stopped for it.
)

// owed names a hook of a container: "tell" is the request, "run" the command.
type owed struct {
	container string
	event     journal.Event
	hook      string
}

func (o owed) String() string {
	return fmt.Sprintf("%s hook %q of container %.8s", o.event, o.hook, o.container)
}

// arrival is one time that a hook came.
type arrival struct {
	at       time.Time
	delivery string    // Commands have none.
	refused  bool      // It was answered with 500.
	done     time.Time // When it was answered well; zero if it was not.
}

// ledger counts hooks outside of the proxy, which dies: it is the server that
// they go to and what the runtime runs as commands.
type ledger struct {
	mu      sync.Mutex
	dice    *rand.Rand
	manners map[string]manner // By container.
	seen    map[owed][]*arrival
	changed chan struct{} // Closed and replaced whenever a hook came or was answered.
}

func newLedger(seed uint64) *ledger {
	return &ledger{
		dice: rand.New(rand.NewPCG(seed, 0)), manners: map[string]manner{}, seen: map[owed][]*arrival{}, changed: make(chan struct{}),
	}
}

// note records an arrival, and says how long it is to take and in which manner.
func (l *ledger) note(o owed, delivery string) (*arrival, time.Duration, manner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &arrival{at: time.Now(), delivery: delivery}
	// A third of the requests is refused when it comes for the first time.
	isFirst := len(l.seen[o]) == 0
	m := l.manners[o.container]
	a.refused = o.hook == "tell" && (isFirst && l.dice.IntN(3) == 0 || m == doomed && o.event == journal.PostStart)
	l.seen[o] = append(l.seen[o], a)
	l.notify()
	return a, time.Duration(l.dice.Int64N(int64(200 * time.Millisecond))), m
}

func (l *ledger) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *ledger) answered(a *arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.done = time.Now()
	l.notify()
}

func (l *ledger) setManner(container string, m manner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.manners[container] = m
}

// ServeHTTP takes a hook. Who hangs up meanwhile was killed.
func (l *ledger) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	o := owed{q.Header.Get("X-Cri-Proxy-Container-Id"), journal.Event(q.Header.Get("X-Cri-Proxy-Event")), "tell"}
	a, takes, m := l.note(o, q.Header.Get("X-Cri-Proxy-Delivery-Id"))
	if m == hurried && o.event == journal.PreStop {
		takes = time.Minute
	}
	pauseFor(q.Context(), takes)
	switch {
	case q.Context().Err() != nil:
	case a.refused:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		l.answered(a)
	}
}

// exec runs the commands "up", after a start, and "down", before a stop.
func (l *ledger) exec(ctx context.Context, q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	event := map[string]journal.Event{"up": journal.PostStart, "down": journal.PreStop}[q.GetCmd()[0]]
	a, takes, _ := l.note(owed{q.GetContainerId(), event, "run"}, "")
	pauseFor(ctx, takes)
	if ctx.Err() == nil {
		l.answered(a)
	}
	return &runtimeapi.ExecSyncResponse{}, nil
}

// of returns the arrivals of a hook.
func (l *ledger) of(o owed) []arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]arrival, 0, len(l.seen[o]))
	for _, a := range l.seen[o] {
		all = append(all, *a)
	}
	return all
}

// doneAt is when a hook was first answered well; zero for never.
func (l *ledger) doneAt(o owed) time.Time {
	for _, a := range l.of(o) {
		if !a.done.IsZero() {
			return a.done
		}
	}
	return time.Time{}
}

func (l *ledger) isDone(o owed) bool { return !l.doneAt(o).IsZero() }

// wait waits until ok, which is about hooks, or ctx has ended.
func (l *ledger) wait(ctx context.Context, ok func() bool) {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// String tells how often hooks came, without those that were refused.
func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	events, times, most := map[journal.Event]int{}, map[int]int{}, 0
	for o, all := range l.seen {
		n := len(slices.DeleteFunc(slices.Clone(all), func(a *arrival) bool { return a.refused }))
		if n == 0 {
			continue // Of a container that is doomed.
		}
		events[o.event]++
		times[n]++
		most = max(most, n)
	}
	text := []string{fmt.Sprintf("%d PostStart and %d PreStop hooks came", events[journal.PostStart], events[journal.PreStop])}
	for n := 1; n <= most; n++ {
		if times[n] > 0 {
			text = append(text, fmt.Sprintf("%d of them %d×", times[n], n))
		}
	}
	return strings.Join(text, ", ")
}
