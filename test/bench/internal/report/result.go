package report

import (
	"slices"
	"time"
)

// Report is what one command measured. Its JSON is its fields.
type Report struct {
	Command string    `json:"command"`
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"` // its kind; no names
	Load    string    `json:"load"`    // average over the minute before: what others did on it
	Rounds  int       `json:"rounds"`
	Runs    []Run     `json:"runs"`
}

// Run is one time through everything.
type Run struct {
	Took    time.Duration `json:"tookNanoseconds"`
	Results []Result      `json:"results"`
	Memory  []Memory      `json:"memory"`
}

// Key says what was measured.
type Key struct {
	Workload   string `json:"workload"`
	Containers int    `json:"containers"` // on the node
	Callers    int    `json:"callers"`
	Contestant string `json:"contestant"`
}

// Result is one contestant in one workload, over all rounds. Ratios are medians
// of the rounds' ratios; they are 0 where there is nothing to compare with.
type Result struct {
	Key

	Operations int           `json:"operations"`
	P50        time.Duration `json:"p50Nanoseconds"`
	P99        time.Duration `json:"p99Nanoseconds"`
	PerSecond  float64       `json:"perSecond"`
	CPU        time.Duration `json:"cpuNanosecondsPerOperation"` // of the contestant's process; 0 for direct
	Commits    float64       `json:"commitsPerOperation"`        // to the state file

	P50ToDirect       float64 `json:"p50ToDirect"`
	PerSecondToDirect float64 `json:"perSecondToDirect"`
	CPUToRaw          float64 `json:"cpuToRaw"`
}

// Memory is one contestant's process, in bytes; 0 is not measured.
type Memory struct {
	Contestant string `json:"contestant"`
	Containers int    `json:"containers"` // on the largest node
	Start      int64  `json:"start"`      // in front of an empty runtime
	Node       int64  `json:"node"`       // in front of that node, after some PLEG seconds
	Peak       int64  `json:"peak"`       // the most while many callers list that node
}

// find returns the result of a key.
func (r Run) find(k Key) (Result, bool) {
	at := slices.IndexFunc(r.Results, func(result Result) bool { return result.Key == k })
	if at < 0 {
		return Result{}, false
	}
	return r.Results[at], true
}

// memoryOf returns the memory of a contestant.
func (r Run) memoryOf(contestant string) (Memory, bool) {
	at := slices.IndexFunc(r.Memory, func(m Memory) bool { return m.Contestant == contestant })
	if at < 0 {
		return Memory{}, false
	}
	return r.Memory[at], true
}

// Median is the middle of values, and 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
