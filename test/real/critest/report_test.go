package critest

import (
	"slices"
	"testing"
)

const ginkgoReport = `[{"SpecReports": [
  {"LeafNodeType": "BeforeSuite", "State": "passed", "NumAttempts": 1},
  {"ContainerHierarchyTexts": ["[k8s.io] Pod", "basic"], "LeafNodeType": "It", "LeafNodeText": "runs", "State": "passed", "NumAttempts": 1},
  {"ContainerHierarchyTexts": ["[k8s.io] Pod", "basic"], "LeafNodeType": "It", "LeafNodeText": "runs", "State": "failed", "NumAttempts": 1,
   "Failure": {"Message": "no such pod"}},
  {"ContainerHierarchyTexts": ["[k8s.io] AppArmor"], "LeafNodeType": "It", "LeafNodeText": "confines", "State": "skipped", "NumAttempts": 1,
   "Failure": {"Message": "not supported"}},
  {"ContainerHierarchyTexts": ["[k8s.io] Benchmark"], "LeafNodeType": "It", "LeafNodeText": "measures", "State": "skipped", "NumAttempts": 0}
]}]`

func TestParse(t *testing.T) {
	t.Parallel()
	report, err := parse([]byte(ginkgoReport))
	if err != nil {
		t.Fatal(err)
	}
	want := Report{
		"Pod basic runs":     {State: Passed},
		"Pod basic runs (2)": {State: "failed", Reason: "no such pod"},
		"AppArmor confines":  {State: Skipped, Reason: "not supported"},
	}
	if len(report) != len(want) {
		t.Errorf("got %+v, want %+v", report, want)
	}
	for name, outcome := range want {
		if report[name] != outcome {
			t.Errorf("%s: got %+v, want %+v", name, report[name], outcome)
		}
	}
	if got := report.Counts(); got != (Counts{Passed: 1, Failed: 1, Skipped: 1}) {
		t.Errorf("counted %+v, want one of each", got)
	}
	if _, err := parse([]byte("{")); err == nil {
		t.Error("half a report was accepted")
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	direct := Report{
		"kept": {State: Passed}, "failed": {State: Passed}, "skipped": {State: Passed}, "panicked": {State: Passed}, "gone": {State: Passed},
		"failed before": {State: "failed"}, "skipped before": {State: Skipped}, "better": {State: "failed"},
	}
	proxied := Report{
		"kept": {State: Passed}, "failed": {State: "failed", Reason: "why"}, "skipped": {State: Skipped}, "panicked": {State: "panicked"},
		"failed before": {State: "failed"}, "skipped before": {State: Skipped}, "better": {State: Passed}, "new": {State: "failed"},
	}
	want := []Difference{
		{"failed", Outcome{"failed", "why"}},
		{"gone", Outcome{"not run", ""}},
		{"panicked", Outcome{"panicked", ""}},
		{"skipped", Outcome{Skipped, ""}},
	}
	if got := direct.Lost(proxied); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
