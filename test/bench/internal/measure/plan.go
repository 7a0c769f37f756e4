// Package measure puts up the stands, lets all contestants do every workload in
// turns, and returns the numbers.
//
// Contestants take turns within each round and the one that begins moves on from
// round to round, so that none is always the first or always after the same
// other. All counts are bounded by the plan: nothing runs until it is "stable".
package measure

import (
	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/report"
)

// Plan says what is measured, and how often.
type Plan struct {
	Self, Proxy string  // paths of this program and of cri-proxy
	Nodes       []int   // sizes in containers, ascending, on which lists are measured
	Middle      int     // the one of them on which everything else is measured
	Callers     []int   // how many side by side
	Rounds      int     // of each workload
	Scale       float64 // of the operations in each round
}

// Full is the plan that the budgets are about.
func Full(self, proxy string) Plan {
	return Plan{
		Self: self, Proxy: proxy,
		Nodes: []int{report.SmallNode, report.MiddleNode, report.LargeNode}, Middle: report.MiddleNode,
		Callers: []int{1, report.Crowd}, Rounds: 12, Scale: 1,
	}
}

// workloads are those of one node.
func (p Plan) workloads(containers int) []load.Workload {
	workloads := load.Lists(containers)
	if containers == p.Middle {
		workloads = append(load.Others(containers), workloads...)
	}
	for i := range workloads {
		workloads[i].Ops = max(2, int(float64(workloads[i].Ops)*p.Scale))
	}
	return workloads
}

// largest is the node on which memory is measured.
func (p Plan) largest() int { return p.Nodes[len(p.Nodes)-1] }
