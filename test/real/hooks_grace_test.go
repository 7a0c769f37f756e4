package real_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

const (
	// runtimeTime is what a runtime gets for a stop when hooks have used up the rest.
	runtimeTime = 2 * time.Second
	// tolerance is what a busy machine adds, and early what its clocks differ.
	tolerance, early = 1500 * time.Millisecond, 50 * time.Millisecond
	// graceRuns is how often a cell is played that is not as it should be; it must
	// be so in most of them.
	graceRuns = 3
)

// graceCell is a hook of some length in a stop with some grace, both in seconds,
// of a container that goes on after TERM.
type graceCell struct {
	hook, grace int
	run         int
}

// stopTimes are from the call that stops a container on.
type stopTimes struct {
	err    error
	term   time.Duration // below 0 is never
	end    time.Duration
	answer time.Duration
	state  string // of the hook
}

// graceConfig is a command of each length, for the containers that name it.
func graceConfig(cells []graceCell) string {
	var config strings.Builder
	for _, seconds := range []int{0, 1, 5, 60} {
		var names []string
		for _, c := range cells {
			for c.run = range graceRuns {
				if c.hook == seconds {
					names = append(names, strconv.Quote(c.name()))
				}
			}
		}
		fmt.Fprintf(&config, `[[handlers.runc.hooks.pre_stop]]
name = "takes-%d"
exec = { command = ["/bin/sleep", "%d"] }
timeout = "90s"
match = { containers = [%s] }
`, seconds, seconds, strings.Join(names, ", "))
	}
	return config.String()
}

func graceCells() []graceCell {
	graces := []int{0, 1, 2, 10}
	if isLong() {
		graces = append(graces, 30)
	}
	var cells []graceCell
	for _, hook := range []int{0, 1, 5, 60} {
		for _, grace := range graces {
			cells = append(cells, graceCell{hook: hook, grace: grace})
		}
	}
	return cells
}

func (c graceCell) name() string { return fmt.Sprintf("h%d-g%d-%d", c.hook, c.grace, c.run) }

// testGrace stops one container of each cell at one time, and those again that
// did not end as they should.
func testGrace(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	cells := graceCells()
	h.serve(ctx, t, "grace", "", map[string]string{"runc": graceConfig(cells)})
	pod := h.runPod(ctx, t, "runc", "grace", nil)
	failed := map[graceCell]int{}
	left := cells
	for run := range graceRuns {
		for i := range left {
			left[i].run = run
		}
		left = pod.playCells(ctx, t, left)
		for _, c := range left {
			c.run = 0
			failed[c]++
		}
	}
	for c, times := range failed {
		if times > graceRuns/2 {
			t.Errorf("a hook of %d s in a grace of %d s: wrong in %d of %d runs", c.hook, c.grace, times, graceRuns)
		}
	}
	pod.remove(ctx, t)
}

// playCells prints the table and returns the cells that are wrong.
func (p *hookPod) playCells(ctx context.Context, t *testing.T, cells []graceCell) (wrong []graceCell) {
	t.Helper()
	if len(cells) == 0 {
		return nil
	}
	ids := make([]string, len(cells))
	for i, c := range cells {
		var err error
		if ids[i], err = p.start(ctx, c.name(), nil, "/bin/stubborn", "/hooks/log"); err != nil {
			t.Fatal(err)
		}
	}
	times := make([]stopTimes, len(cells))
	var stopping sync.WaitGroup
	for i, c := range cells {
		stopping.Go(func() {
			times[i] = p.measure(ctx, c.name(), ids[i], func() error { return p.stop(ctx, ids[i], int64(c.grace)) })
		})
	}
	stopping.Wait()
	table := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "hook\tgrace\tTERM\tended\tanswered\tthe hook\tverdict")
	for i, c := range cells {
		verdict := "ok"
		if err := c.check(times[i]); err != nil {
			verdict, wrong = err.Error(), append(wrong, c)
		}
		fmt.Fprintf(table, "%d s\t%d s\t%s\t%s\t%s\t%s\t%s\n", c.hook, c.grace, shown(times[i].term), shown(times[i].end), shown(times[i].answer), times[i].state, verdict)
	}
	if err := table.Flush(); err != nil {
		t.Error(err)
	}
	return wrong
}

func shown(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// measure stops a stubborn container and reads off when what happened: TERM from
// its file, the end from the containerd.
func (p *hookPod) measure(ctx context.Context, name, id string, stop func() error) stopTimes {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	stopErr := stop()
	s := stopTimes{answer: time.Since(began), term: -1}
	status, err := p.awaitEnd(ctx, id)
	s.end = time.Unix(0, status.GetFinishedAt()).Sub(began)
	records, recordsErr := p.records(ctx, id)
	for _, r := range records {
		s.state += r.State
	}
	s.term, s.err = p.termed(name, began)
	s.err = errors.Join(stopErr, err, recordsErr, s.err)
	return s
}

// termed is when a stubborn container got its first TERM.
func (p *hookPod) termed(name string, began time.Time) (time.Duration, error) {
	_, rest, found := strings.Cut(p.written(name), "TERM ")
	if !found {
		return -1, nil
	}
	at, _, _ := strings.Cut(rest, "\n")
	nanoseconds, err := strconv.ParseInt(at, 10, 64)
	return time.Unix(0, nanoseconds).Sub(began), err
}

// check holds a cell against what is promised.
func (c graceCell) check(s stopTimes) error {
	grace, hook := time.Duration(c.grace)*time.Second, time.Duration(c.hook)*time.Second
	if c.grace == 0 {
		return cmp.Or(s.err, unless(s.term < 0, "it got TERM"), unless(s.end < tolerance, "it was not killed at once"),
			unless(s.state == "skipped", "the hook is not skipped"))
	}
	state := s.state // Either, where a busy machine makes the difference.
	switch {
	case hook+tolerance <= grace:
		state = "delivered"
	case hook > grace:
		state = "failed"
	}
	return cmp.Or(s.err,
		unless(s.end <= grace+runtimeTime+tolerance, "it ended too late"),
		unless(s.answer <= grace+runtimeTime+2*tolerance, "the answer came too late"),
		unless(s.end >= grace-early, "it was killed too early"),
		unless(s.term >= min(hook, grace)-early, "TERM came before the hook was over"),
		unless(s.term <= min(hook, grace)+tolerance, "TERM came late after the hook"),
		unless(s.state == state, "the hook is not "+state))
}

func unless(ok bool, problem string) error {
	if ok {
		return nil
	}
	return errors.New(problem)
}
