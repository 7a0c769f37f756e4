package journal

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPutReadsBack(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	want := record("r", Running)
	want.Deadline = &Deadline{Boot: time.Hour, BootID: "b", Wall: noon().Add(time.Minute)}
	want.Hook = Hook{
		Name: "drain", Source: FromPod, Attempts: 3, Timeout: time.Second, Backoff: time.Millisecond, Wait: true, Kill: true,
		HTTPGet: &HTTPGet{Scheme: "https", Port: 443, Path: "/drain?all=<1>&x", Headers: []Header{{"A", "1"}, {"A", "2"}}},
	}
	want.Position, want.Attempts, want.Error = 4, 2, "no answer \"yet\"\n"
	mustPut(t, j, want)
	got, err := j.Record("r")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("read back (-want +got):\n%s%v", diff, err)
	}
	err = j.Update(func(tx *Tx) error {
		inside, err := tx.Get("r")
		if diff := cmp.Diff(want, inside); diff != "" {
			t.Errorf("read inside of an Update (-want +got):\n%s", diff)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	checkIndexes(t, j)
}

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Record)
		want   string
	}{
		"no id":            {func(r *Record) { r.ID = "" }, "id"},
		"an id of no text": {func(r *Record) { r.ID = "\xff" }, "stands under"},
		"too long an id":   {func(r *Record) { r.ID = strings.Repeat("x", 40_000) }, "key too large"},
		"no container":     {func(r *Record) { r.Container = "" }, "container"},
		"no event":         {func(r *Record) { r.Event = "" }, "event"},
		"an unknown event": {func(r *Record) { r.Event = "PostStop" }, "PostStop"},
		"no state":         {func(r *Record) { r.State = "" }, "cannot become"},
		"no action":        {func(r *Record) { r.Hook.Sleep = 0 }, "0 actions"},
		"two actions":      {func(r *Record) { r.Hook.Exec = []string{"true"} }, "2 actions"},
		"no attempts":      {func(r *Record) { r.Hook.Attempts = 0 }, "0 attempts"},
		"a time-out < 0":   {func(r *Record) { r.Hook.Timeout = -1 }, "time-out"},
		"a back-off < 0":   {func(r *Record) { r.Hook.Backoff = -1 }, "back-off"},
		"a year too late":  {func(r *Record) { r.Accepted = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }, "year"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, _ := newJournal(t)
			mustPut(t, j, record("r", Pending))
			before, r := dump(t, j), record("r", Running)
			tt.change(&r)
			// The caller may go on with the rest of its Update.
			err := j.Update(func(tx *Tx) error {
				err := tx.Put(r)
				if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrNotFound) {
					t.Errorf("Put: %v, want %q", err, tt.want)
				}
				return nil
			})
			if diff := cmp.Diff(before, dump(t, j)); diff != "" || err != nil {
				t.Errorf("a refused Put changed something (-before +after):\n%s%v", diff, err)
			}
		})
	}
}

// A hook that makes no sense is the caller's mistake, and no record of another version.
func TestPutOfABadHookIsNotUnreadable(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	r := record("r", Pending)
	r.Hook.Sleep = 0
	if err := put(j, r); err == nil || errors.Is(err, ErrUnreadable) {
		t.Errorf("Put: %v", err)
	}
}

func TestPutFillsInTimes(t *testing.T) {
	t.Parallel()
	j, c := newJournal(t)
	r := record("r", Pending)
	r.Accepted = time.Time{}
	steps := []struct {
		state              State
		accepted, finished time.Time
	}{
		{Pending, noon(), time.Time{}},
		{Failed, noon(), noon().Add(time.Hour)},
		{Failed, noon(), noon().Add(time.Hour)}, // The same again: it has finished already.
		{Pending, noon(), time.Time{}},          // An operator's retry.
		{Delivered, noon(), noon().Add(4 * time.Hour)},
	}
	for i, s := range steps {
		c.at = noon().Add(time.Duration(i) * time.Hour)
		r.State = s.state
		mustPut(t, j, r)
		var err error
		if r, err = j.Record("r"); err != nil || !r.Accepted.Equal(s.accepted) || !r.Finished.Equal(s.finished) {
			t.Errorf("step %d: accepted %s and finished %s, want %s and %s (%v)", i, r.Accepted, r.Finished, s.accepted, s.finished, err)
		}
		checkIndexes(t, j)
	}
}

// A retry may accept a record anew: its entry in the index moves.
func TestPutWithAnotherTime(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	oddZone := time.FixedZone("odd", 3601) // JSON has no seconds in a zone.
	for _, s := range []State{Pending, Running, Running, Failed, Failed, Pending, Pending, Moot} {
		for _, at := range []time.Time{noon().Add(time.Nanosecond), noon().Add(-time.Hour), noon().In(oddZone), {}} {
			r := record("r", s)
			r.Accepted = at
			if s.Finished() {
				r.Finished = at.Add(time.Minute)
			}
			mustPut(t, j, r)
			checkIndexes(t, j)
		}
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	var errs []error
	for _, s := range States() {
		errs = append(errs, put(j, record(string(s), s)))
	}
	for _, s := range States() {
		errs = append(errs, j.Update(func(tx *Tx) error { return errors.Join(tx.Drop(string(s)), tx.Drop("unknown")) }))
		checkIndexes(t, j)
		if _, err := j.Record(string(s)); !errors.Is(err, ErrNotFound) {
			t.Errorf("a dropped record: %v, want %v", err, ErrNotFound)
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestUpdateRollsBack(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	mustPut(t, j, record("r", Pending))
	before, own := dump(t, j), errors.New("own")
	change := func(tx *Tx) error {
		return errors.Join(tx.Put(record("r", Delivered)), tx.Put(record("new", Pending)), tx.PutContainer(Container{ID: "c"}))
	}
	err := j.Update(func(tx *Tx) error { return errors.Join(change(tx), own) })
	if !errors.Is(err, own) {
		t.Errorf("Update: %v, want %v", err, own)
	}
	func() {
		defer func() {
			if r := recover(); r == nil {
				t.Error("a panic did not come through")
			}
		}()
		err = j.Update(func(tx *Tx) error { panic(change(tx)) })
	}()
	if diff := cmp.Diff(before, dump(t, j)); diff != "" {
		t.Errorf("after a roll-back (-before +after):\n%s", diff)
	}
	mustPut(t, j, record("r", Delivered)) // The lock is free.
}

func TestContainers(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	a := Container{
		ID: "a", Sandbox: "s", Handler: "runc", Pod: Pod{Namespace: "n"}, Name: "app", Seen: true,
		Annotations: map[string]string{"k": "v"}, Stop: &Stop{Accepted: noon(), Asked: 5, Deadline: Deadline{Boot: 5, BootID: "b", Wall: noon()}},
	}
	b := Container{ID: "b"}
	if err := j.Update(func(tx *Tx) error { return errors.Join(tx.PutContainer(b), tx.PutContainer(a)) }); err != nil {
		t.Fatal(err)
	}
	got, known, err := j.Container("a")
	if diff := cmp.Diff(a, got); diff != "" || !known || err != nil {
		t.Errorf("read back (-want +got):\n%s%v", diff, err)
	}
	all, err := j.Containers()
	if diff := cmp.Diff([]Container{a, b}, all); diff != "" || err != nil {
		t.Errorf("all (-want +got):\n%s%v", diff, err)
	}
	if err := j.Update(func(tx *Tx) error { return errors.Join(tx.Forget("a"), tx.Forget("unknown")) }); err != nil {
		t.Fatal(err)
	}
	if _, known, err := j.Container("a"); known || err != nil {
		t.Errorf("a forgotten container is known: %v (%v)", known, err)
	}
	for _, id := range []string{"", "\xff"} {
		if err := j.Update(func(tx *Tx) error { return tx.PutContainer(Container{ID: id}) }); err == nil {
			t.Errorf("a container with id %q was written", id)
		}
	}
}

func TestStopsAreOnlyShortened(t *testing.T) {
	t.Parallel()
	stop := func(asked, boot time.Duration, id string) *Stop {
		return &Stop{Accepted: noon(), Asked: asked, Deadline: Deadline{Boot: boot, BootID: id}}
	}
	tests := []struct {
		name           string
		old, new, want *Stop
		shortened      *Stop // By Shorten, where that differs from PutContainer.
	}{
		{"no stop", nil, nil, nil, nil},
		{"the first", nil, stop(5, 50, "b"), stop(5, 50, "b"), nil},
		{"earlier", stop(5, 50, "b"), stop(2, 20, "b"), stop(2, 20, "b"), stop(2, 20, "b")},
		{"the same", stop(5, 50, "b"), stop(5, 50, "b"), stop(5, 50, "b"), stop(5, 50, "b")},
		{"later", stop(5, 50, "b"), stop(9, 90, "b"), stop(5, 50, "b"), stop(5, 50, "b")},
		{"earlier, but asks for more", stop(5, 50, "b"), stop(9, 20, "b"), stop(5, 20, "b"), stop(5, 20, "b")},
		{"later, but asks for less", stop(5, 50, "b"), stop(2, 90, "b"), stop(2, 50, "b"), stop(2, 50, "b")},
		// After a reboot the old deadline means nothing.
		{"another boot, earlier", stop(5, 50, "b"), stop(5, 20, "c"), stop(5, 20, "c"), stop(5, 20, "c")},
		{"another boot, later", stop(5, 50, "b"), stop(9, 90, "c"), stop(5, 90, "c"), stop(5, 90, "c")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j, _ := newJournal(t)
			err := j.Update(func(tx *Tx) error {
				return errors.Join(
					tx.PutContainer(Container{ID: "put", Stop: tt.old}), tx.PutContainer(Container{ID: "put", Stop: tt.new}),
					tx.PutContainer(Container{ID: "shorten", Name: "app", Stop: tt.old}),
				)
			})
			if tt.new != nil {
				err = errors.Join(err, j.Update(func(tx *Tx) error {
					return errors.Join(tx.Shorten("shorten", *tt.new), tx.Shorten("unknown", *tt.new))
				}))
			}
			if err != nil {
				t.Fatal(err)
			}
			all, err := j.Containers()
			want := []Container{{ID: "put", Stop: tt.want}, {ID: "shorten", Name: "app", Stop: tt.shortened}}
			if diff := cmp.Diff(want, all); diff != "" || err != nil {
				t.Errorf("the stops (-want +got):\n%s%v", diff, err)
			}
		})
	}
}

// Writing a container without its stop says that it has ended.
func TestPutContainerEndsAStop(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	err := j.Update(func(tx *Tx) error {
		return errors.Join(tx.PutContainer(Container{ID: "c", Stop: &Stop{Asked: 1}}), tx.PutContainer(Container{ID: "c"}))
	})
	if c, known, readErr := j.Container("c"); c.Stop != nil || !known || err != nil || readErr != nil {
		t.Errorf("the stop is %v, known %v (%v, %v)", c.Stop, known, err, readErr)
	}
}
