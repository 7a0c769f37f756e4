package real_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// realFault is one thing that goes wrong with the second of two containerds.
type realFault struct {
	name  string
	come  func(context.Context) error
	end   func(context.Context) error
	away  bool // Between the two its ids are Unavailable.
	wiped bool // Afterwards its pods are gone.
}

// TestFaults: real containerds end, are killed, and come back with the same and
// with an empty state. Lists are whole or errors, ids route to their owners, and
// the other containerd does its work all the while.
//
//nolint:paralleltest,tparallel // One fault comes after the other.
func TestFaults(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	if err := n.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	n.alpha, n.beta = startContainerd(ctx, t, n, "stays"), startContainerd(ctx, t, n, "goes")
	proxy := startProxy(ctx, t, n.Rig, "faults", n.alpha, n.beta)
	front, image := crictl(t, n, proxy.Endpoint()), pushImage(ctx, t, n)
	here, there := startPod(ctx, t, n, front, "runc", image), startPod(ctx, t, n, front, second, image)
	nothing := func(context.Context) error { return nil }
	for _, f := range []realFault{
		{name: "stopped", come: func(context.Context) error { return n.beta.Stop() }, end: n.beta.Start, away: true},
		{name: "killed", come: func(context.Context) error { return n.beta.Kill() }, end: n.beta.Start, away: true},
		{name: "restarted", come: func(ctx context.Context) error { return errors.Join(n.beta.Stop(), n.beta.Start(ctx)) }, end: nothing},
		{name: "there when the proxy is killed", come: func(ctx context.Context) error { return errors.Join(proxy.Kill(), proxy.Start(ctx)) }, end: nothing},
		{name: "emptied", come: func(ctx context.Context) error { return errors.Join(n.beta.Stop(), n.beta.Empty(ctx)) }, end: n.beta.Start, away: true, wiped: true},
	} {
		t.Run(f.name, func(t *testing.T) {
			saw := testFault(ctx, t, f, front, here, there)
			recordReal(t, "a containerd is "+f.name, saw, "lists whole or errors, ids at their owners, the other goes on, afterwards all is as the backends have it")
		})
	}
	again := startPod(ctx, t, n, front, second, pushImage(ctx, t, n))
	wantRouted(ctx, t, front, again)
	run(ctx, t, front, "rmp", "--force", here.pod, again.pod)
}

// testFault returns what callers saw while the fault lasted.
func testFault(ctx context.Context, t *testing.T, f realFault, front rig.Crictl, here, there started) string {
	t.Helper()
	if err := f.come(ctx); err != nil {
		t.Fatal(err)
	}
	listed, listErr := front.Run(ctx, "pods", "-q", "--no-trunc")
	if listErr == nil {
		wantLines(t, listed, here.pod, there.pod)
	}
	_, idErr := front.Run(ctx, "inspectp", there.pod)
	if f.away {
		wantCode(t, idErr, "Unavailable")
	}
	wantRouted(ctx, t, front, here)
	if err := f.end(ctx); err != nil {
		t.Fatal(err)
	}
	want := []string{here.pod}
	if !f.wiped {
		want = append(want, there.pod)
	}
	waitFor(ctx, t, func() error {
		listed, err := front.Run(ctx, "pods", "-q", "--no-trunc")
		got := strings.Fields(listed)
		slices.Sort(got)
		slices.Sort(want)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("listed are %q, want %q", got, want)
		}
		return err
	})
	wantRouted(ctx, t, front, here)
	if f.wiped {
		_, err := front.Run(ctx, "inspectp", there.pod)
		wantCode(t, err, "NotFound")
	} else {
		// By a short id: a whole one is answered as soon as the containerd is there,
		// but which one a short id means is known only when it was listed again.
		waitFor(ctx, t, func() error { _, err := front.Run(ctx, "inspectp", short(there.pod)); return err })
		wantRouted(ctx, t, front, there)
	}
	return fmt.Sprintf("list %s; its id %s; the other's ids OK", outcome(listErr), outcome(idErr))
}

func outcome(err error) string {
	if err == nil {
		return "OK"
	}
	_, code, found := strings.Cut(err.Error(), "code = ")
	if code, _, _ = strings.Cut(code, " "); found {
		return code
	}
	return "failed"
}

// recordReal adds a row to the table that "make faults" writes into
// docs/faults.md; without it nobody asks for one.
func recordReal(t *testing.T, fault, saw, held string) {
	t.Helper()
	path := os.Getenv("FAULTS_TABLE")
	if path == "" {
		return
	}
	ok := map[bool]string{true: "**FAILED**", false: "yes"}[t.Failed()]
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "| containerd | %s | %s | %s | %s |\n", fault, saw, held, ok)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
