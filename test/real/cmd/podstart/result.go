package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// budget is what a pod's start may take, in times of that without a proxy.
const budget = 1.05

// confidence is how sure the interval of the ratio is at least.
const confidence = 0.95

// The verdicts. What holds the budget inside its interval is not decided.
const (
	met    = "met"
	missed = "missed"
	open   = "not decided: the interval holds the budget"
)

// result are the starts of both sides, in pairs.
type result struct {
	about           string // what was measured, when and on what
	direct, proxied []time.Duration
	took            time.Duration
}

// ratios are those of the pairs, sorted.
func (r result) ratios() []float64 {
	ratios := make([]float64, len(r.direct))
	for i := range ratios {
		ratios[i] = float64(r.proxied[i]) / float64(r.direct[i])
	}
	slices.Sort(ratios)
	return ratios
}

// interval returns two of the sorted values that the median of all pairs there
// could be lies between, and how sure that is. It is the interval of the sign
// test, which knows nothing of how the values are spread: each pair is below that
// median as a coin falls, so the chance of at most k pairs below it is that of k
// heads. Fewer than six pairs are too few to be sure; then it is all of them.
func interval(sorted []float64) (low, high, sure float64) {
	n := len(sorted)
	chance := coin(n)
	tail, k := chance, 0 // k pairs are left out on each side
	for next := chance; ; k++ {
		next *= float64(n-k) / float64(k+1)
		if k+1 > (n-1)/2 || 2*(tail+next) > 1-confidence {
			break
		}
		tail += next
	}
	return sorted[k], sorted[n-1-k], 1 - 2*tail
}

// coin is the chance that all of n coins fall the same way.
func coin(n int) float64 {
	chance := 1.0
	for range n {
		chance /= 2
	}
	return chance
}

// median is that of sorted values.
func median[T int64 | float64](sorted []T) T {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// side is the median and the 95th percentile of one side.
func side(times []time.Duration) (middle, p95 time.Duration) {
	sorted := make([]int64, len(times))
	for i, t := range times {
		sorted[i] = int64(t)
	}
	slices.Sort(sorted)
	return time.Duration(median(sorted)), time.Duration(sorted[(len(sorted)*95+99)/100-1])
}

func (r result) verdict() string {
	low, high, _ := interval(r.ratios())
	switch {
	case high <= budget:
		return met
	case low > budget:
		return missed
	}
	return open
}

// ratio is the median of the pairs' ratios with its interval.
func (r result) ratio() string {
	ratios := r.ratios()
	low, high, sure := interval(ratios)
	return fmt.Sprintf("%.3f (%.3f to %.3f, sure to %.0f %%)", median(ratios), low, high, 100*sure)
}

// text is the result in Markdown.
func (r result) text() string {
	direct, direct95 := side(r.direct)
	proxied, proxied95 := side(r.proxied)
	var text strings.Builder
	fmt.Fprintf(&text, "%s; %d pods on each side in %s.\n\n", r.about, len(r.direct), r.took.Round(time.Second))
	text.WriteString("| start of a pod | direct | through the proxy | ratio |\n|---|---|---|---|\n")
	for _, row := range []struct {
		name            string
		direct, proxied time.Duration
	}{{"median", direct, proxied}, {"p95", direct95, proxied95}} {
		fmt.Fprintf(&text, "| %s | %s | %s | %.3f |\n", row.name, ms(row.direct), ms(row.proxied), float64(row.proxied)/float64(row.direct))
	}
	fmt.Fprintf(&text, "\n| what | budget | measured | verdict |\n|---|---|---|---|\n| median of the pairs' ratios | ≤ %.2f × direct | %s | %s |\n", budget, r.ratio(), r.verdict())
	return text.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
