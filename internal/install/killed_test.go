package install

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKilledAtEveryStep: what a killed installation left, uninstall puts back.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, name := range stepNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			before := n.tree()
			n.o.Failpoint = func(step string) error {
				if step == name {
					panic("killed")
				}
				return nil
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Fatal("it was not killed")
					}
				}()
				t.Error(n.plan().Install(t.Context()))
			}()
			n.o.Failpoint = nil
			if _, err := NewPlan(t.Context(), n.o); !errors.Is(err, ErrInstalled) {
				t.Errorf("another installation: %v", err)
			}
			if err := Uninstall(t.Context(), n.o); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, n.tree()); diff != "" {
				t.Errorf("the node before and after (-before +after):\n%s", diff)
			}
		})
	}
}

// TestNobodyListens: an installation whose reader goes away is undone no less.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.o.Out = &deaf{hears: 3}
	n.failsAndIsUndone(t.Context(), "nobody listens")
	n.o.Out = nil
	if err := n.plan().Install(t.Context()); err != nil {
		t.Errorf("the next installation: %v", err)
	}
}

// deaf takes a few writes only.
type deaf struct{ hears int }

func (d *deaf) Write(p []byte) (int, error) {
	if d.hears--; d.hears < 0 {
		return 0, errors.New("nobody listens")
	}
	return len(p), nil
}

// TestKilledWhileWriting: a half of a file, which a killed installation leaves beside the
// file, goes with the rest.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.tree()
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write("/var/lib/kubelet/.config.yaml.cri-proxy-123", "kind: Kubelet", 0o600)
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("the node before and after (-before +after):\n%s", diff)
	}
}
