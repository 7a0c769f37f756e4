package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/stand"
)

// The generated part of a document stands between these two lines.
const (
	beginMark = "<!-- bench: what follows is written by \"make bench\" -->"
	endMark   = "<!-- bench: end -->"
)

// Insert puts the report's tables between the marks of a document.
func (r Report) Insert(document string) (string, error) {
	before, rest, begins := strings.Cut(document, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return "", fmt.Errorf("the document has no place for the tables: put the lines %q and %q into it", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + r.Markdown() + "\n" + endMark + after, nil
}

// Markdown is the whole report for a reader.
func (r Report) Markdown() string {
	var took []string
	for _, run := range r.Runs {
		took = append(took, run.Took.Round(time.Second).String())
	}
	return strings.Join([]string{
		fmt.Sprintf("`%s`, %s, %s, load average %s before; runs of %s; %d rounds of each workload in a run.\n",
			r.Command, r.Date.Format(time.DateOnly), r.Machine, r.Load, strings.Join(took, ", "), r.Rounds),
		"### Budgets\n", r.budgets(),
		"### One caller: p50, × direct\n", r.table(1, "p50 of direct", formatP50, formatP50ToDirect),
		"### One caller: p99\n", r.table(1, "p99 of direct", formatP99, formatP99),
		"### One caller: processor time of the contestant per operation (× raw)\n", r.table(1, "", nil, formatCPU),
		"### 16 callers: operations per second, × direct\n", r.table(Crowd, "per second of direct", formatPerSecond, formatPerSecondToDirect),
		"### 16 callers: p99\n", r.table(Crowd, "p99 of direct", formatP99, formatP99),
		"### 16 callers: processor time of the contestant per operation (× raw)\n", r.table(Crowd, "", nil, formatCPU),
		"### A pod start without hooks and with one PostStart hook\n", r.hooks(),
		"### Resident memory, MiB\n", r.memory(),
	}, "\n")
}

func (r Report) budgets() string {
	header := []string{"what", "budget"}
	for i := range r.Runs {
		header = append(header, "run "+strconv.Itoa(i+1))
	}
	rows := [][]string{append(header, "verdict")}
	for _, b := range Budgets() {
		values, verdict := b.Judge(r.Runs)
		row := []string{b.What, b.limit()}
		for i := range r.Runs {
			row = append(row, b.format(values, i))
		}
		rows = append(rows, append(row, string(verdict)))
	}
	return markdownTable(rows)
}

func (b Budget) limit() string {
	sign := "≤ "
	if b.AtLeast {
		sign = "≥ "
	}
	return sign + strconv.FormatFloat(b.Limit, 'f', -1, 64) + " " + b.Unit
}

func (b Budget) format(values []float64, run int) string {
	if run >= len(values) {
		return "–"
	}
	if b.Unit == "MiB" {
		return fmt.Sprintf("%.0f", values[run])
	}
	return fmt.Sprintf("%.2f", values[run])
}

// table has a row for each workload and a column for each contestant. The
// numbers are the medians of the runs.
func (r Report) table(callers int, directHeader string, direct, other func(Result) string) string {
	names := stand.Names()[1:]
	header := append([]string{"workload"}, names...)
	if direct != nil {
		header = slices.Insert(header, 1, directHeader)
	}
	rows := [][]string{header}
	for _, key := range r.workloads(callers) {
		row := []string{title(key.Workload, key.Containers)}
		if direct != nil {
			row = append(row, direct(r.middle(key)))
		}
		for _, name := range names {
			key.Contestant = name
			row = append(row, other(r.middle(key)))
		}
		rows = append(rows, row)
	}
	return markdownTable(rows)
}

// workloads are the keys of direct, in the order of the first run.
func (r Report) workloads(callers int) []Key {
	var keys []Key
	for _, result := range r.Runs[0].Results {
		if result.Callers == callers && result.Contestant == stand.Direct {
			keys = append(keys, result.Key)
		}
	}
	return keys
}

// middle has the median of the runs in every number.
func (r Report) middle(k Key) Result {
	of := func(field func(Result) float64) float64 {
		var values []float64
		for _, run := range r.Runs {
			if result, ok := run.find(k); ok {
				values = append(values, field(result))
			}
		}
		return Median(values)
	}
	return Result{
		Key:               k,
		P50:               time.Duration(of(func(r Result) float64 { return float64(r.P50) })),
		P99:               time.Duration(of(func(r Result) float64 { return float64(r.P99) })),
		PerSecond:         of(func(r Result) float64 { return r.PerSecond }),
		CPU:               time.Duration(of(func(r Result) float64 { return float64(r.CPU) })),
		Commits:           of(func(r Result) float64 { return r.Commits }),
		P50ToDirect:       of(func(r Result) float64 { return r.P50ToDirect }),
		PerSecondToDirect: of(func(r Result) float64 { return r.PerSecondToDirect }),
		CPUToRaw:          of(func(r Result) float64 { return r.CPUToRaw }),
	}
}

// hooks compares the starts of pods with and without a hook.
func (r Report) hooks() string {
	rows := [][]string{{"contestant", "callers", "p50", "× direct", "p50 added by the hook", "commits to disk per pod"}}
	for _, callers := range []int{1, Crowd} {
		keys := r.workloads(callers)
		at := slices.IndexFunc(keys, func(k Key) bool { return k.Workload == load.PodStart })
		if at < 0 {
			continue
		}
		var without time.Duration
		for _, name := range []string{stand.One, stand.Hooked} {
			key := keys[at]
			key.Contestant = name
			result, added := r.middle(key), "–"
			if name == stand.Hooked {
				added = formatDuration(result.P50 - without)
			}
			without = result.P50
			rows = append(rows, []string{
				name, strconv.Itoa(callers), formatP50(result), formatP50ToDirect(result), added, fmt.Sprintf("%.1f", result.Commits),
			})
		}
	}
	return markdownTable(rows)
}

func (r Report) memory() string {
	rows := [][]string{{"contestant", "at start", "on the largest node", "peak while 16 callers list it"}}
	for _, m := range r.Runs[0].Memory {
		of := func(field func(Memory) int64) string {
			var values []float64
			for _, run := range r.Runs {
				if m, ok := run.memoryOf(m.Contestant); ok {
					values = append(values, float64(field(m))/(1<<20))
				}
			}
			return fmt.Sprintf("%.0f", Median(values))
		}
		rows = append(rows, []string{
			m.Contestant,
			of(func(m Memory) int64 { return m.Start }),
			of(func(m Memory) int64 { return m.Node }),
			of(func(m Memory) int64 { return m.Peak }),
		})
	}
	return markdownTable(rows)
}

func formatP50(r Result) string         { return formatDuration(r.P50) }
func formatP99(r Result) string         { return formatDuration(r.P99) }
func formatP50ToDirect(r Result) string { return fmt.Sprintf("%.2f", r.P50ToDirect) }
func formatPerSecond(r Result) string   { return fmt.Sprintf("%.0f", r.PerSecond) }

func formatPerSecondToDirect(r Result) string { return fmt.Sprintf("%.2f", r.PerSecondToDirect) }

func formatCPU(r Result) string {
	return fmt.Sprintf("%s (%.2f)", formatDuration(r.CPU), r.CPUToRaw)
}

func formatDuration(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// title names a workload and the size of its node.
func title(workload string, containers int) string {
	size := strconv.Itoa(containers)
	if n := len(size); n > 3 {
		size = size[:n-3] + "," + size[n-3:]
	}
	return workload + " (" + size + ")"
}

func markdownTable(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
	return b.String()
}
