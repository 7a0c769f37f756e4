package measure

import (
	"slices"
	"time"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/report"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/stand"
)

// turn is what one contestant did in a round, and the processor time it took.
type turn struct {
	load.Turn

	cpu     time.Duration
	commits int
}

func (t turn) p50() float64       { return float64(load.Quantile(t.Latencies, 0.5)) }
func (t turn) perSecond() float64 { return float64(len(t.Latencies)) / t.Wall.Seconds() }
func (t turn) cpuPerOp() float64  { return float64(t.cpu) / float64(len(t.Latencies)) }
func (t turn) commitsPerOp() float64 {
	return float64(t.commits) / float64(len(t.Latencies))
}

// rounds holds the turns of each contestant in the order of the rounds.
type rounds struct {
	names []string
	turns map[string][]turn
}

func newRounds(contestants []*stand.Contestant) *rounds {
	r := &rounds{turns: map[string][]turn{}}
	for _, c := range contestants {
		r.names = append(r.names, c.Name)
	}
	return r
}

func (r *rounds) add(name string, t turn) { r.turns[name] = append(r.turns[name], t) }

// results makes one result of each contestant's rounds.
func (r *rounds) results(key report.Key) []report.Result {
	var results []report.Result
	for _, name := range r.names {
		key.Contestant = name
		results = append(results, r.result(key))
	}
	return results
}

func (r *rounds) result(key report.Key) report.Result {
	turns := r.turns[key.Contestant]
	var latencies []time.Duration
	for _, t := range turns {
		latencies = append(latencies, t.Latencies...)
	}
	slices.Sort(latencies)
	return report.Result{
		Key:        key,
		Operations: len(latencies),
		P50:        load.Quantile(latencies, 0.5),
		P99:        load.Quantile(latencies, 0.99),
		PerSecond:  report.Median(each(turns, turn.perSecond)),
		CPU:        time.Duration(report.Median(each(turns, turn.cpuPerOp))),
		Commits:    report.Median(each(turns, turn.commitsPerOp)),

		P50ToDirect:       r.ratio(key.Contestant, stand.Direct, turn.p50),
		PerSecondToDirect: r.ratio(key.Contestant, stand.Direct, turn.perSecond),
		CPUToRaw:          r.ratio(key.Contestant, stand.Raw, turn.cpuPerOp),
	}
}

// ratio is the median of a number's ratios, round by round.
func (r *rounds) ratio(name, to string, of func(turn) float64) float64 {
	var ratios []float64
	for i, t := range r.turns[name] {
		if other := of(r.turns[to][i]); other > 0 {
			ratios = append(ratios, of(t)/other)
		}
	}
	return report.Median(ratios)
}

func each(turns []turn, of func(turn) float64) []float64 {
	values := make([]float64, len(turns))
	for i, t := range turns {
		values[i] = of(t)
	}
	return values
}
