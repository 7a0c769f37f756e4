package journal

import (
	"testing"
	"time"
)

func TestStatesGoOneWay(t *testing.T) {
	t.Parallel()
	allowed := map[State][]State{
		Pending:   {Pending, Running, Delivered, Failed, Skipped, Moot},
		Running:   {Running, Delivered, Failed, Skipped, Moot},
		Delivered: {Delivered},
		Failed:    {Failed, Pending},
		Skipped:   {Skipped},
		Moot:      {Moot},
	}
	for _, from := range States() {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			want := map[State]bool{}
			for _, to := range allowed[from] {
				want[to] = true
			}
			for _, to := range append(States(), "paused", "") {
				if got := from.MayBecome(to); got != want[to] {
					t.Errorf("%s may become %q: %v, want %v", from, to, got, want[to])
				}
				j, _ := newJournal(t)
				mustPut(t, j, record("r", from))
				if err := put(j, record("r", to)); (err == nil) != want[to] {
					t.Errorf("Put of a %q over a %s: %v", to, from, err)
				}
				checkIndexes(t, j)
			}
		})
	}
	if State("paused").MayBecome(Pending) || State("paused").Finished() {
		t.Error("an unknown state may become something, or is finished")
	}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for want, h := range map[string]Hook{
		"exec":    {Exec: []string{"/bin/drain"}},
		"httpGet": {HTTPGet: &HTTPGet{Port: 80}},
		"sleep":   {Sleep: time.Second, Exec: []string{}},
	} {
		h.Attempts = 1
		if got := h.Kind(); got != want {
			t.Errorf("%+v is a hook of kind %q, want %q", h, got, want)
		}
		if err := h.check(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Another process has to come to the same id, so it is written down here.
func TestDeliveryIDNeverChanges(t *testing.T) {
	t.Parallel()
	h := Hook{Name: "drain", Source: FromNode}
	id := DeliveryID("c1", PreStop, h)
	if want := "4111370a46ce6472"; id != want {
		t.Errorf("the id is %q, want %q", id, want)
	}
	h.Exec, h.Timeout, h.Attempts = []string{"/bin/drain"}, time.Minute, 3
	if again := DeliveryID("c1", PreStop, h); again != id {
		t.Errorf("another definition of the hook gives id %q, want %q", again, id)
	}
	others := map[string]string{
		"container": DeliveryID("c2", PreStop, h),
		"event":     DeliveryID("c1", PostStart, h),
		"source":    DeliveryID("c1", PreStop, Hook{Name: "drain", Source: FromPod}),
		"name":      DeliveryID("c1", PreStop, Hook{Name: "drain2", Source: FromNode}),
		"a border":  DeliveryID("c1P", "reStop", h),
	}
	seen := map[string]string{id: "the first"}
	for name, other := range others {
		if seen[other] != "" {
			t.Errorf("another %s: the same id as %s", name, seen[other])
		}
		seen[other] = name
	}
}
