package backend

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

func changed(changes []Change) (ids []string) {
	for _, c := range changes {
		if c.Item == nil {
			ids = append(ids, "-"+c.ID)
		} else {
			ids = append(ids, "+"+c.ID)
		}
	}
	return ids
}

// TestLastListCorrections: what is answered while a list is on its way stays
// beside it, what was answered before is in it.
func TestLastListCorrections(t *testing.T) {
	t.Parallel()
	item := &runtimeapi.Container{}
	var l LastList
	l.Created("before the first list", item)
	if _, _, ok := l.Snapshot(); ok {
		t.Error("a snapshot without a list")
	}
	failed := l.Begin()
	l.Created("during a list that fails", item)
	l.End(failed, nil)

	first := l.Begin()
	l.Created("during", item)
	second := l.Begin() // Lists overlap: two callers.
	l.Removed("later")
	l.End(first, rawcri.NewFrame([]byte("first")))
	want := []string{"+during", "-later"}
	if _, changes, ok := l.Snapshot(); !ok || !slices.Equal(changed(changes), want) {
		t.Errorf("after the first list: %v, want %v", changed(changes), want)
	}
	l.End(second, rawcri.NewFrame([]byte("second")))
	list, changes, ok := l.Snapshot()
	if want := []string{"-later"}; !ok || list.Len() != len("second") || !slices.Equal(changed(changes), want) {
		t.Errorf("after the second list: %v, want %v", changed(changes), want)
	}
	list.Free()
	l.End(l.Begin(), rawcri.NewFrame(nil))
	if _, changes, ok := l.Snapshot(); !ok || len(changes) != 0 {
		t.Errorf("a list that has it all: %v", changed(changes))
	}
	l.free()
	if _, _, ok := l.Snapshot(); ok {
		t.Error("a snapshot after the end")
	}
}

// TestLastListOverlap: an older list that comes last does not replace a newer
// one, whose corrections were dropped.
func TestLastListOverlap(t *testing.T) {
	t.Parallel()
	var l LastList
	l.End(l.Begin(), rawcri.NewFrame(nil))
	older := l.Begin()
	l.Created("new", &runtimeapi.Container{})
	newer := l.Begin()
	l.End(newer, rawcri.NewFrame([]byte("has it")))
	l.End(older, rawcri.NewFrame([]byte("has it not")))
	list, changes, ok := l.Snapshot()
	if !ok || list.Len() != len("has it") || len(changes) != 0 {
		t.Errorf("a list of %d bytes and %v, want the newer one", list.Len(), changed(changes))
	}
	list.Free()
}

func TestLastListAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forever, minute := LastList{}, LastList{ttl: time.Minute}
		for _, l := range []*LastList{&forever, &minute} {
			l.End(l.Begin(), rawcri.NewFrame(nil))
		}
		time.Sleep(time.Minute) //nolint:forbidigo // By the clock of the bubble.
		if _, _, ok := minute.Snapshot(); !ok {
			t.Error("too old after its ttl to the second")
		}
		time.Sleep(24 * time.Hour) //nolint:forbidigo // By the clock of the bubble.
		if _, _, ok := minute.Snapshot(); ok {
			t.Error("used after its ttl")
		}
		if _, _, ok := forever.Snapshot(); !ok {
			t.Error("without a ttl it is as old as the process")
		}
	})
}

// TestLastListBounded: what came and went leaves its removal alone, and a list
// that nobody renews is forgotten in the end, those on their way included.
func TestLastListBounded(t *testing.T) {
	t.Parallel()
	var l LastList
	failed := l.Begin()
	l.Created("while a list that fails is the only one", &runtimeapi.Container{})
	l.End(failed, nil)
	if len(l.changes) > 0 {
		t.Errorf("%v are kept without a list", changed(l.changes))
	}
	l.End(l.Begin(), rawcri.NewFrame(nil))
	l.Created("sandbox", &runtimeapi.PodSandbox{Id: "sandbox"})
	l.Created("container", &runtimeapi.Container{Id: "container", PodSandboxId: "sandbox"})
	l.Removed("sandbox")
	if want := []string{"-sandbox"}; !slices.Equal(changed(l.changes), want) {
		t.Errorf("kept are %v, want %v", changed(l.changes), want)
	}
	slow := l.Begin()
	for i := range maxChanges {
		l.Removed(strconv.Itoa(i))
	}
	if _, changes, ok := l.Snapshot(); ok || len(changes) > 0 {
		t.Errorf("%d changes are kept", len(changes))
	}
	l.End(slow, rawcri.NewFrame([]byte("without its corrections")))
	if _, _, ok := l.Snapshot(); ok {
		t.Error("a list was taken whose corrections are forgotten")
	}
	l.End(l.Begin(), rawcri.NewFrame(nil))
	if _, _, ok := l.Snapshot(); !ok {
		t.Error("the next list was not taken")
	}
}
