// Package report turns what was measured into ratios, verdicts, JSON and the
// tables of docs/performance.md.
//
// A ratio is never made of two numbers from different rounds: each contestant's
// round is divided by that of the same round of the one it is compared with, and
// the median over the rounds counts. So what slows the whole machine for a while
// slows both and falls out.
package report
