package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// TestPodStart is the shortest run on a real containerd. It judges no number:
// other tests run beside it.
func TestPodStart(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test starts a containerd: run it as root")
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	const pairs = 5
	r, err := measureOn(t.Context(), root, pairs, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.direct) != pairs || len(r.proxied) != pairs {
		t.Fatalf("%d and %d starts, want %d each", len(r.direct), len(r.proxied), pairs)
	}
	for i := range pairs {
		if r.direct[i] <= 0 || r.proxied[i] <= 0 {
			t.Errorf("pair %d took %s and %s", i, r.direct[i], r.proxied[i])
		}
	}
	t.Log("\n" + r.text())
}

// TestInterval compares with the published ranks of the sign test's interval:
// for ten values the second and the ninth (97.9 %), for 100 the 40th and the 61st
// (96.5 %).
func TestInterval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n         int
		low, high float64
		sure      float64
	}{{1, 1, 1, 0}, {2, 1, 2, 0.5}, {5, 1, 5, 0.9375}, {6, 1, 6, 0.96875}, {10, 2, 9, 0.9785}, {100, 40, 61, 0.9648}} {
		ranks := make([]float64, tt.n)
		for i := range ranks {
			ranks[i] = float64(i + 1)
		}
		low, high, sure := interval(ranks)
		if low != tt.low || high != tt.high || math.Abs(sure-tt.sure) > 0.0001 {
			t.Errorf("%d values: from the %vth to the %vth, sure to %v; want %+v", tt.n, low, high, sure, tt)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		proxied func(pair int) float64 // of a direct start of 100 ms
		want    string
		ratio   string
	}{
		"free":         {func(int) float64 { return 100 }, met, "1.000 (1.000 to 1.000"},
		"far too slow": {func(int) float64 { return 120 }, missed, "1.200 (1.200 to 1.200"},
		"too noisy":    {func(pair int) float64 { return 95 + float64(pair) }, open, "1.045 (1.000 to 1.090"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r result
			for i := range 20 {
				r.direct = append(r.direct, 100*time.Millisecond)
				r.proxied = append(r.proxied, time.Duration(tt.proxied(i)*float64(time.Millisecond)))
			}
			if got := r.verdict(); got != tt.want {
				t.Errorf("%s: %s, want %s", r.ratio(), got, tt.want)
			}
			for _, part := range []string{tt.want, tt.ratio} {
				if !strings.Contains(r.text(), part) {
					t.Errorf("%q is not in:\n%s", part, r.text())
				}
			}
		})
	}
}

func TestSide(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(100-i))
	}
	if middle, p95 := side(times); middle != 50 || p95 != 95 {
		t.Errorf("median %d, p95 %d of 1 to 100", middle, p95)
	}
	if middle, p95 := side(times[:1]); middle != 100 || p95 != 100 {
		t.Errorf("median %d, p95 %d of one value, 100", middle, p95)
	}
}

func TestDocumentKeepsWhatIsAroundIt(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(file, []byte("before\n"+beginMark+"\nold\n"+endMark+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replace(file, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "before\n" + beginMark + "\n\n" + explanation + "new\n\n" + endMark + "\nafter\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(file, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replace(file, "new\n"); err == nil {
		t.Error("a file without the markers was overwritten")
	}
}
