package report

import (
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		budget Budget
		values []float64
		want   Verdict
	}{
		"below":                       {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.1, 2.2, 2.3}, Met},
		"one run far off":             {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.1, 9, 2.2}, Met},
		"beyond by little":            {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.4, 2.4, 2.4}, Noise},
		"one run of three fails":      {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.4, 2.4, 2.6}, Noise},
		"two runs of three fail":      {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.2, 2.6, 2.6}, Missed},
		"the only run fails":          {Budget{Limit: 2.3, Tolerance: noise}, []float64{2.6}, Missed},
		"reached":                     {Budget{Limit: 0.5, AtLeast: true, Tolerance: noise}, []float64{0.6, 0.7, 0.5}, Met},
		"not reached":                 {Budget{Limit: 0.5, AtLeast: true, Tolerance: noise}, []float64{0.2, 0.2, 0.9}, Missed},
		"memory has no noise":         {Budget{Limit: 30}, []float64{30.1, 30.1, 29}, Missed},
		"nothing was measured at all": {Budget{Limit: 30}, nil, NotMeasured},
	} {
		runs := make([]Run, len(test.values))
		for i, v := range test.values {
			runs[i].Results = []Result{{P50ToDirect: v}}
		}
		test.budget.value = ratio(Key{}, func(r Result) float64 { return r.P50ToDirect })
		if got, verdict := test.budget.Judge(runs); verdict != test.want || len(got) != len(runs) {
			t.Errorf("%s: %v is %s, want %s", name, got, verdict, test.want)
		}
	}
	budget := Budget{value: ratio(Key{Workload: "other"}, func(r Result) float64 { return r.P50ToDirect })}
	if _, verdict := budget.Judge([]Run{{Results: []Result{{}}}}); verdict != NotMeasured {
		t.Errorf("a workload that was not measured is %s", verdict)
	}
}

func TestInsert(t *testing.T) {
	t.Parallel()
	r := Report{Command: "make bench", Runs: []Run{{}}}
	got, err := r.Insert("before\n" + beginMark + "\nold\n" + endMark + "\nafter\n")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "before\n"+beginMark+"\n\n`make bench`") || !strings.HasSuffix(got, "\n"+endMark+"\nafter\n") || strings.Contains(got, "old") {
		t.Errorf("the document is\n%s", got)
	}
	if again, err := r.Insert(got); err != nil || again != got {
		t.Errorf("renewing twice gives %v\n%s", err, again)
	}
	for _, document := range []string{"", beginMark, endMark, endMark + beginMark} {
		if _, err := r.Insert(document); err == nil {
			t.Errorf("%q is accepted", document)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := Median(test.values); got != test.want {
			t.Errorf("the median of %v is %v, want %v", test.values, got, test.want)
		}
	}
}
