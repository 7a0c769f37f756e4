package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/internal/state"
)

// A life is a stream of Updates that anybody can make again: one container
// after another, each in lifeSteps, half an hour apart.
const lifeSteps = 8

func lifeTime(n int) time.Time { return noon().Add(time.Duration(n) * 30 * time.Minute) }

// live is Update number n of a life. It writes n+1 with it, so that the file
// tells how far it has come.
func live(tx *Tx, n int) error {
	c, life := Container{ID: fmt.Sprintf("c%d", n/lifeSteps), Annotations: map[string]string{"k": "v"}}, n/lifeSteps
	hook := func(event Event, position int, s State) error {
		r := record(fmt.Sprintf("%s-%s-%d", c.ID, event, position), s)
		r.Container, r.Event, r.Position, r.Accepted = c.ID, event, position, lifeTime(life*lifeSteps)
		return tx.Put(r)
	}
	stop := func(asked time.Duration) *Stop {
		return &Stop{Asked: asked, Deadline: Deadline{Boot: time.Hour + asked, BootID: "b", Wall: noon()}}
	}
	var err error
	switch n % lifeSteps {
	case 0:
		err = errors.Join(tx.PutContainer(c), hook(PostStart, 0, Pending), hook(PostStart, 1, Pending))
	case 1:
		err = hook(PostStart, 0, Running)
	case 2:
		err = errors.Join(hook(PostStart, 0, Delivered), hook(PostStart, 1, Running))
	case 3:
		err = hook(PostStart, 1, Failed)
	case 4:
		c.Stop = stop(time.Minute)
		err = errors.Join(tx.PutContainer(c), hook(PreStop, 0, Pending), hook(PreStop, 1, Pending), hook(PreStop, 2, Pending), hook(PostStart, 1, Pending))
	case 5:
		err = errors.Join(tx.Shorten(c.ID, *stop(time.Second)), hook(PreStop, 0, Running))
	case 6:
		err = errors.Join(hook(PreStop, 0, Delivered), hook(PreStop, 1, Skipped), hook(PreStop, 2, Moot))
	case 7:
		err = errors.Join(tx.Forget(c.ID), tx.Drop(c.ID+"-PostStart-1"), hook(PreStop, 0, Delivered))
	}
	return errors.Join(err, tx.PutContainer(Container{ID: "progress", Name: strconv.Itoa(n + 1)}))
}

// progress is how many Updates of a life are in the file.
func progress(j *Journal) (int, error) {
	c, known, err := j.Container("progress")
	if !known || err != nil {
		return 0, err
	}
	return strconv.Atoi(c.Name)
}

func liveOn(j *Journal, n int) error { return j.Update(func(tx *Tx) error { return live(tx, n) }) }

// At both points of every kind of Update: all or nothing is in the file, also
// for another process, and the same Update may be made again.
func TestFaultsAtEveryPoint(t *testing.T) {
	t.Parallel()
	own, c := errors.New("the disk says no"), &clock{}
	var failAt state.Point
	o := storeOptions(t.TempDir())
	o.Fault = func(p state.Point) error {
		if p == failAt {
			return own
		}
		return nil
	}
	sound := New(openStore(t, storeOptions(t.TempDir())), c.now)
	for n := range 8 * lifeSteps { // Longer than finished records are kept.
		c.at = lifeTime(n)
		before := dump(t, sound)
		if err := liveOn(sound, n); err != nil {
			t.Fatal(err)
		}
		after := dump(t, sound)
		for _, step := range []struct {
			failAt state.Point
			want   map[string]string
		}{{state.BeforeCommit, before}, {state.AfterCommit, after}, {"", after}} {
			failAt = step.failAt
			s, err := state.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			j := New(s, c.now)
			if err := liveOn(j, n); errors.Is(err, own) != (failAt != "") || failAt == "" && err != nil {
				t.Fatalf("Update %d with a fault %q: %v", n, failAt, err)
			}
			compareWith(t, j, step.want, fmt.Sprintf("Update %d with a fault %q", n, failAt))
			closeStore(t, s)
			if j = reopen(t, o, c); failAt != "" {
				compareWith(t, j, step.want, fmt.Sprintf("Update %d with a fault %q, reopened", n, failAt))
			}
			closeStore(t, j.store)
		}
	}
}

func compareWith(t *testing.T, j *Journal, want map[string]string, what string) {
	t.Helper()
	if diff := cmp.Diff(want, dump(t, j)); diff != "" {
		t.Fatalf("%s: the file has (-want +got):\n%s", what, diff)
	}
	checkIndexes(t, j)
}

// reopen opens a journal that the test closes, from a sound file.
func reopen(t *testing.T, o state.Options, c *clock) *Journal {
	t.Helper()
	s, err := state.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s.ResetFrom() != "" {
		t.Fatal("the file was damaged")
	}
	return New(s, c.now)
}

// A commit that removes what is too many is all or nothing as well.
func TestFaultsWhilePruning(t *testing.T) {
	t.Parallel()
	for _, failAt := range []state.Point{state.BeforeCommit, state.AfterCommit} {
		t.Run(string(failAt), func(t *testing.T) {
			t.Parallel()
			o, c, isFailing := storeOptions(t.TempDir()), &clock{at: noon().Add(KeepFor / 2)}, false
			o.Fault = func(p state.Point) error {
				if isFailing && p == failAt {
					return errors.New("the disk says no")
				}
				return nil
			}
			j := reopen(t, o, c)
			finish(t, j, noon(), KeepMost)
			isFailing = true
			if err := put(j, record("a", Delivered), record("b", Delivered)); err == nil {
				t.Error("the Update did not fail")
			}
			closeStore(t, j.store)
			j = reopen(t, o, c)
			isFailing = false
			checkIndexes(t, j)
			all, _, err := j.Records()
			if got := sortedIDs(all); err != nil || len(got) != KeepMost || (got[len(got)-1] == "b") != (failAt == state.AfterCommit) {
				t.Errorf("%d records, the last is %q (%v)", len(got), got[len(got)-1], err)
			}
			mustPut(t, j, record("a", Delivered), record("b", Delivered))
			checkIndexes(t, j)
			closeStore(t, j.store)
		})
	}
}

// writeForEver lives on in dir and prints how many Updates are on disk.
func writeForEver(dir string) error {
	s, err := state.Open(context.Background(), storeOptions(dir))
	if err != nil {
		return err
	}
	c := &clock{}
	j := New(s, c.now)
	n, err := progress(j)
	for ; err == nil; n++ {
		c.at = lifeTime(n)
		if err = liveOn(j, n); err == nil {
			_, err = fmt.Fprintln(os.Stdout, n+1)
		}
	}
	return err
}

// A writer is killed in the middle of its Updates, several times. What it was
// told to be on disk is there, and the rest is the beginning of the same life.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	o, c := storeOptions(t.TempDir()), &clock{}
	replay, done := New(openStore(t, storeOptions(t.TempDir())), c.now), 0
	for round := range 6 {
		told := writeAndKill(t, o.Dir, 5+9*round)
		j := reopen(t, o, c)
		reached, err := progress(j)
		if err != nil || reached < told {
			t.Fatalf("round %d: %d Updates are in the file, %d were told to be (%v)", round, reached, told, err)
		}
		for ; done < reached; done++ {
			c.at = lifeTime(done)
			if err := liveOn(replay, done); err != nil {
				t.Fatal(err)
			}
		}
		compareWith(t, j, dump(t, replay), fmt.Sprintf("round %d", round))
		closeStore(t, j.store)
	}
	t.Logf("%d Updates over 6 kills", done)
}

// writeAndKill kills a writer after some more Updates and returns the number of
// the last one of which it said that it is on disk.
func writeAndKill(t *testing.T, dir string, updates int) (told int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, n := bufio.NewScanner(out), 0
	for ; lines.Scan(); n++ {
		if n == updates {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
		if told, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); n <= updates || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the writer ended with %v after %d Updates", err, n)
	}
	return told
}

// A deadline and the boot that it belongs to come back to the next process as they were.
func TestDeadlinesSurvive(t *testing.T) {
	t.Parallel()
	o, c := storeOptions(t.TempDir()), &clock{at: noon()}
	first := Stop{Accepted: noon(), Asked: 30 * time.Second, Deadline: Deadline{Boot: time.Hour, BootID: "first", Wall: noon()}}
	r := record("r", Pending)
	r.Deadline = &first.Deadline
	second := Stop{Accepted: noon().Add(time.Hour), Asked: time.Minute, Deadline: Deadline{Boot: 2 * time.Hour, BootID: "second", Wall: noon().Add(time.Hour)}}
	want := Stop{Accepted: noon(), Asked: 30 * time.Second, Deadline: first.Deadline}
	change := func(tx *Tx) error { return errors.Join(tx.PutContainer(Container{ID: "c", Stop: &first}), tx.Put(r)) }
	for _, name := range []string{"the same boot", "another boot", "and later in it"} {
		j := reopen(t, o, c)
		if err := j.Update(change); err != nil {
			t.Fatal(err)
		}
		closeStore(t, j.store)
		j = reopen(t, o, c)
		got, known, err := j.Container("c")
		if diff := cmp.Diff(&want, got.Stop); diff != "" || !known || err != nil {
			t.Errorf("%s (-want +got):\n%s%v", name, diff, err)
		}
		if open, err := j.Unfinished(); err != nil || len(open) != 1 || *open[0].Deadline != first.Deadline {
			t.Errorf("%s: the hook is due at %+v (%v)", name, open, err)
		}
		closeStore(t, j.store)
		if name == "another boot" {
			second.Deadline.Boot *= 2 // Asked for again, later: it stays.
		}
		change = func(tx *Tx) error { return tx.Shorten("c", second) }
		want.Deadline = Deadline{Boot: 2 * time.Hour, BootID: "second", Wall: noon().Add(time.Hour)}
	}
}
