package critest

import (
	"fmt"
	"maps"
	"slices"
)

// State is what became of a spec, in Ginkgo's words.
type State string

// The states that are told apart; all others ("panicked", "timedout", …) are
// failures.
const (
	Passed  State = "passed"
	Skipped State = "skipped"
	missing State = "not run"
)

// Outcome is what became of a spec, and why if it did not pass.
type Outcome struct {
	State  State
	Reason string
}

// Report is one run, by the full name of each spec. What was not asked for is
// not in it.
type Report map[string]Outcome

// Counts are how many specs ended in which way.
type Counts struct {
	Passed, Failed, Skipped int
}

// Difference is a spec that passed directly and did not through the proxy.
type Difference struct {
	Spec string
	Outcome
}

// Counts counts.
func (r Report) Counts() Counts {
	var counts Counts
	for _, outcome := range r {
		switch outcome.State {
		case Passed:
			counts.Passed++
		case Skipped:
			counts.Skipped++
		default:
			counts.Failed++
		}
	}
	return counts
}

// Names are those of the specs that ended in one way, or any but Passed for "",
// sorted.
func (r Report) Names(wanted State) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if state := r[name].State; state == wanted || wanted == "" && state != Passed {
			names = append(names, name)
		}
	}
	return names
}

// Lost are the specs that passed directly and failed, were skipped or did not
// run through the proxy, sorted.
func (r Report) Lost(proxied Report) []Difference {
	var lost []Difference
	for _, name := range r.Names(Passed) {
		outcome, ok := proxied[name]
		if !ok {
			outcome.State = missing
		}
		if outcome.State != Passed {
			lost = append(lost, Difference{Spec: name, Outcome: outcome})
		}
	}
	return lost
}

// unique tells specs of one name apart. Their order is fixed.
func (r Report) unique(name string) string {
	numbered := name
	for number := 2; ; number++ {
		if _, ok := r[numbered]; !ok {
			return numbered
		}
		numbered = fmt.Sprintf("%s (%d)", name, number)
	}
}
