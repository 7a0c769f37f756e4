package hooks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

// A stop does not wait for all the records that the disk did not take before, and
// that are being tried again: between two of its own commits is one other at most.
func TestStopBesideAFlush(t *testing.T) {
	t.Parallel()
	const unsaved, most = 100, 30
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		for i := range unsaved {
			r.keep(errors.New("the disk says no"), leftRecord(fmt.Sprint("before-", i), journal.PreStop))
		}
		commit := make(chan struct{}) // Each one waits for the test's leave.
		r.setFault(func(p state.Point) error {
			if p == state.BeforeCommit {
				<-commit
			}
			return nil
		})
		after(t, flushPause) // It is in its first commit.
		done := make(chan error)
		go func() { done <- r.Stop(t.Context(), container("c"), 10*time.Second) }()
		commits := 0
		for stopped := false; !stopped; {
			select {
			case commit <- struct{}{}:
				commits++
			case err := <-done:
				if stopped = true; err != nil {
					t.Error(err)
				}
			}
		}
		close(commit)
		t.Logf("the stop took %d commits, all but four those of others", commits)
		if commits > most {
			t.Errorf("the stop was held up by %d commits", commits)
		}
		wantNotes(t, d, "5s exec true", "5s TERM", "5s end")
	})
}

// Many stops at once share their commits, so that a slow disk pushes none past
// its deadline. Time is real here: who waits for a lock is no reason for another
// clock to go on.
func TestStopsOnASlowDisk(t *testing.T) {
	t.Parallel()
	const stops, flush, grace = 100, 20 * time.Millisecond, 4 * time.Second
	d := newDouble()
	r := newRig(t, preStop(exec("drain", "true")), d)
	var commits atomic.Int64
	r.setFault(func(p state.Point) error {
		if p == state.BeforeCommit {
			commits.Add(1)
			<-time.After(flush)
		}
		return nil
	})
	var done []func() error
	for i := range stops {
		id := fmt.Sprint("c", i)
		d.add(id, running, nil)
		done = append(done, begin(func() error { return r.Stop(t.Context(), container(id), grace) }))
	}
	for _, wait := range done {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	n := commits.Load()
	t.Logf("%d stops made %d commits", stops, n)
	if n > stops { // One by one they would make four each, and take twice the grace period.
		t.Errorf("%d stops made %d commits", stops, n)
	}
	ended := 0
	for _, note := range d.all() {
		at, isEnd := strings.CutSuffix(note, " end")
		if after, err := time.ParseDuration(at); isEnd && err == nil && after <= grace {
			ended++
		}
	}
	if ran := d.ran("true"); ran != stops || ended != stops {
		t.Errorf("%d hooks ran, and %d containers ended within their grace period, of %d", ran, ended, stops)
	}
	r.setFault(nil)
	r.clean()
	all, _, err := r.Journal.Records()
	delivered := slices.DeleteFunc(all, func(r journal.Record) bool { return r.State != journal.Delivered })
	if err != nil || len(delivered) != stops {
		t.Errorf("%d hooks were delivered (%v), want %d", len(delivered), err, stops)
	}
}
