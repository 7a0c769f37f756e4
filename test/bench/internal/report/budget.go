package report

import (
	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/stand"
)

// Budget is a promise about one number.
type Budget struct {
	What      string
	Unit      string // "× direct", "× raw", "MiB" or "commits"
	Limit     float64
	AtLeast   bool    // the number has to reach the limit instead of keeping below it
	Tolerance float64 // how far beyond the limit a run may be before it fails

	value func(Run) (float64, bool) // false: not measured
}

// Verdict is what the runs say about a budget.
type Verdict string

// Verdicts. A budget is missed when most runs fail it, and met within noise when
// most do not although the middle one is beyond the limit.
const (
	Met         Verdict = "met"
	Noise       Verdict = "met within noise"
	Missed      Verdict = "missed"
	NotMeasured Verdict = "not measured"
)

// noise is the difference of two ratios that does not count in one run.
const noise = 0.2

// Nodes on which the budgets are promised, in containers, and the number of
// callers of the promises about many.
const (
	SmallNode  = 100
	MiddleNode = 1_000
	LargeNode  = 5_000

	Crowd = 16
)

// Budgets are all promises about speed and memory.
func Budgets() []Budget {
	budgets := []Budget{
		latency(load.Version, MiddleNode, stand.One, 2.3),
		latency(load.ContainerStatus, MiddleNode, stand.One, 2.3),
		throughput(load.Version), throughput(load.ContainerStatus),
		cpu(load.Version, 0.8), cpu(load.ContainerStatus, 0.8),
		latency(load.ListContainers, SmallNode, stand.One, 1.2),
		latency(load.ListContainers, MiddleNode, stand.One, 1.2),
		latency(load.ListContainers, LargeNode, stand.One, 1.15),
		cpu(load.ListContainers, 0.55),
		latency(load.PLEGSecond, MiddleNode, stand.One, 1.45),
		cpu(load.PLEGSecond, 0.8),
	}
	for _, containers := range []int{SmallNode, MiddleNode, LargeNode} {
		budgets = append(budgets, latency(load.ListContainers, containers, stand.Two, 1.15))
	}
	return append(budgets,
		latency(load.PLEGSecond, MiddleNode, stand.Two, 1.15),
		latency(load.PodStart, MiddleNode, stand.One, 2.3),
		commits(load.PodStart, stand.One),
		memory("at start", 30, func(m Memory) int64 { return m.Start }),
		memory("with 1,000 pods of 5 containers", 80, func(m Memory) int64 { return m.Node }),
		memory("peak while 16 callers list 5,000 containers", 200, func(m Memory) int64 { return m.Peak }),
	)
}

func latency(workload string, containers int, contestant string, limit float64) Budget {
	k := Key{Workload: workload, Containers: containers, Callers: 1, Contestant: contestant}
	return Budget{
		What: title(workload, containers) + ", p50, " + contestant, Unit: "× direct", Limit: limit, Tolerance: noise,
		value: ratio(k, func(r Result) float64 { return r.P50ToDirect }),
	}
}

func throughput(workload string) Budget {
	k := Key{Workload: workload, Containers: MiddleNode, Callers: Crowd, Contestant: stand.One}
	return Budget{
		What: workload + ", calls per second of 16 callers", Unit: "× direct", Limit: 0.5, AtLeast: true, Tolerance: noise,
		value: ratio(k, func(r Result) float64 { return r.PerSecondToDirect }),
	}
}

func cpu(workload string, limit float64) Budget {
	k := Key{Workload: workload, Containers: MiddleNode, Callers: 1, Contestant: stand.One}
	return Budget{
		What: title(workload, MiddleNode) + ", CPU", Unit: "× raw", Limit: limit, Tolerance: noise,
		value: ratio(k, func(r Result) float64 { return r.CPUToRaw }),
	}
}

// commits are promised to be none.
func commits(workload, contestant string) Budget {
	k := Key{Workload: workload, Containers: MiddleNode, Callers: 1, Contestant: contestant}
	return Budget{
		What: title(workload, MiddleNode) + " without hooks, to the state file", Unit: "commits",
		value: ratio(k, func(r Result) float64 { return r.Commits }),
	}
}

func ratio(k Key, of func(Result) float64) func(Run) (float64, bool) {
	return func(run Run) (float64, bool) {
		r, ok := run.find(k)
		return of(r), ok
	}
}

// memory is promised with the large node.
func memory(what string, mebibytes float64, of func(Memory) int64) Budget {
	return Budget{
		What: "memory " + what, Unit: "MiB", Limit: mebibytes,
		value: func(run Run) (float64, bool) {
			m, ok := run.memoryOf(stand.One)
			return float64(of(m)) / (1 << 20), ok && m.Containers == LargeNode
		},
	}
}

// Judge returns the number in each run, and what they say together.
func (b Budget) Judge(runs []Run) ([]float64, Verdict) {
	var values []float64
	failed := 0
	for _, run := range runs {
		value, ok := b.value(run)
		if !ok {
			return nil, NotMeasured
		}
		values = append(values, value)
		if b.beyond(value) > b.Tolerance {
			failed++
		}
	}
	switch {
	case len(values) == 0:
		return nil, NotMeasured
	case 2*failed > len(values):
		return values, Missed
	case b.beyond(Median(values)) > 0:
		return values, Noise
	default:
		return values, Met
	}
}

// beyond is how far a number is on the wrong side of the limit.
func (b Budget) beyond(value float64) float64 {
	if b.AtLeast {
		return b.Limit - value
	}
	return value - b.Limit
}
