package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/critest"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	direct := critest.Report{"Pod runs": {State: critest.Passed}}
	for name, test := range map[string]struct {
		direct, proxied critest.Report
		want            []string // in the error, none for no error
	}{
		"the same":         {direct: direct, proxied: direct},
		"failed":           {direct, critest.Report{"Pod runs": {State: "failed", Reason: "no pod"}}, []string{"(z)", "Pod runs", "failed", "no pod"}},
		"skipped":          {direct, critest.Report{"Pod runs": {State: critest.Skipped}}, []string{"Pod runs", "skipped"}},
		"not run":          {direct, critest.Report{}, []string{"Pod runs", "not run"}},
		"nothing to lose":  {critest.Report{}, critest.Report{}, []string{"nothing to compare"}},
		"failed as before": {critest.Report{"a": {State: "failed"}, "b": {State: critest.Passed}}, critest.Report{"a": {State: "failed"}, "b": {State: critest.Passed}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := verdict([]result{{combination: combination{letter: 'z'}, direct: test.direct, proxied: test.proxied}})
			if (err == nil) != (test.want == nil) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %q", part, err)
				}
			}
		})
	}
}

func TestDocumentKeepsWhatIsAroundIt(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "conformance.md")
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
	if want := "before\n" + beginMark + "\n\nnew\n\n" + endMark + "\nafter\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(file, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replace(file, "new\n"); err == nil {
		t.Error("a file without the markers was overwritten")
	}
}

// TestCombinations holds that what a combination compares is comparable: the
// handler's own name and the age of the containerd behind it.
func TestCombinations(t *testing.T) {
	t.Parallel()
	for _, combination := range combinations() {
		last := combination.backends[len(combination.backends)-1]
		if last.Old != combination.direct.old {
			t.Errorf("(%c): the proxied containerd and the direct one differ", combination.letter)
		}
		if known := append(last.Handlers, plain); !strings.Contains(strings.Join(known, " "), combination.direct.handler) {
			t.Errorf("(%c): the proxied containerd has the handlers %q, the direct one %s", combination.letter, known, combination.direct.handler)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	skipped := critest.Report{"Pod runs": {State: critest.Skipped, Reason: "not here\nat all"}}
	passed := critest.Report{"Pod runs": {State: critest.Passed}}
	results := []result{
		{combination: combination{letter: 'a'}, direct: skipped, proxied: skipped},
		{combination: combination{letter: 'b'}, direct: passed, proxied: passed},
		{combination: combination{letter: 'c'}, direct: skipped, proxied: passed},
	}
	var got strings.Builder
	for _, name := range notPassed(results) {
		explain(&got, name, results)
	}
	if want := "- ac: Pod runs: skipped: not here (passed through the proxy in c)\n"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}
