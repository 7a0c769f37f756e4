package real_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// query is one of the dashboard's.
type query struct {
	panel  string
	expr   string
	legend string
}

func (q query) String() string { return q.panel + ": " + q.legend }

// quiet are the queries without an answer on a node where all is well and nothing
// happens but the calls that a kubelet makes all the time, and why.
func quiet() map[string]string {
	return map[string]string{
		"Failed calls by method and code: {{method}} {{code}}": "no call fails; their sum beside them is 0",
		"Duration, 95th percentile: {{handler}} {{event}}":     "no hook was run, so none took any time",
	}
}

// testHealthy: on such a node no alert fires, and the dashboard shows something
// everywhere but where there is nothing.
func testHealthy(ctx context.Context, t *testing.T, m *monitored) {
	reasons := quiet()
	for _, q := range dashboard(t, m) {
		_, empty := reasons[q.String()]
		delete(reasons, q.String())
		if err := m.answersSoon(ctx, q, !empty); (err != nil) != empty {
			t.Errorf("%s: %v; an answer is expected: %t", q, err, !empty)
		}
	}
	if len(reasons) > 0 {
		t.Errorf("the dashboard has no %q", slices.Sorted(maps.Keys(reasons)))
	}
	firing, err := m.firing(ctx)
	if err != nil || len(firing) > 0 {
		t.Errorf("%q fire, %v", slices.Sorted(maps.Keys(firing)), err)
	}
}

// testDashboard: after everything has happened, every query has an answer, and
// asks for labels that there are; so do the alerts.
func testDashboard(ctx context.Context, t *testing.T, m *monitored) {
	for _, q := range dashboard(t, m) {
		if err := m.answersSoon(ctx, q, true); err != nil {
			t.Errorf("%s: %v", q, err)
		}
		if err := m.labels(ctx, q.expr); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
	rules, err := m.rules(ctx, "alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		if err := m.labels(ctx, rule.Query); err != nil {
			t.Errorf("%s: %v", rule.Name, err)
		}
	}
}

// testVariable: what a user chooses from is the instances.
func testVariable(ctx context.Context, t *testing.T, m *monitored) {
	asks := regexp.MustCompile(`"query": "label_values\((\w+), (\w+)\)"`).FindStringSubmatch(dashboardText(t, m))
	if asks == nil {
		t.Fatal("the dashboard has no variable that asks for the values of a label")
	}
	values, _, _, err := m.api.LabelValues(ctx, asks[2], []string{asks[1]}, time.Now().Add(-time.Minute), time.Now())
	if err != nil || len(values) != 1 || string(values[0]) != m.proxy.Metrics {
		t.Errorf("%s: the values are %q, %v, want %s", asks[0], values, err, m.proxy.Metrics)
	}
}

// testMisspelt: a mistake in a query is seen.
func testMisspelt(ctx context.Context, t *testing.T, m *monitored) {
	for _, wrong := range []query{
		{legend: "{{backend}}", expr: `cri_proxy_backends_up`},
		{legend: "{{backends}}", expr: `cri_proxy_backend_up`},
		{legend: "{{kind}}", expr: `sum by (knd) (cri_proxy_routes)`},
		{legend: "{{method}}", expr: `sum by (method, cod) (cri_proxy_requests_total)`},
		{legend: "{{method}}", expr: `cri_proxy_requests_total{cod!="OK"}`},
		{legend: "{{method}}", expr: `cri_proxy_requests_total{instanc=~".*"}`},
		{legend: "{{instance}}", expr: `up{job="cri-prox"}`},
		{legend: "{{instance}}", expr: `rate(up[1m]) / 0`},
		{legend: "{{instance}}", expr: `rate(up)`},
	} {
		if err := errors.Join(m.answers(ctx, wrong), m.labels(ctx, wrong.expr)); err == nil {
			t.Errorf("%s is taken for right", wrong.expr)
		}
	}
}

func dashboardText(t *testing.T, m *monitored) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Root, "configs", "monitoring", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dashboard are its queries as Grafana sends them, for one instance.
func dashboard(t *testing.T, m *monitored) []query {
	t.Helper()
	var document struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(dashboardText(t, m)), &document); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "2m", "$instance", strings.ReplaceAll(m.proxy.Metrics, ".", "[.]"))
	var all []query
	for _, panel := range document.Panels {
		for _, target := range panel.Targets {
			all = append(all, query{panel.Title, variables.Replace(target.Expr), target.LegendFormat})
		}
	}
	if len(all) < 20 {
		t.Errorf("the dashboard has only %d queries", len(all))
	}
	return all
}

// answersSoon waits for an answer, which two scrapes may be needed for.
func (m *monitored) answersSoon(ctx context.Context, q query, wait bool) error {
	if !wait {
		return m.answers(ctx, q)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return rig.Poll(ctx, func() error { return m.answers(ctx, q) })
}

// answers says why a query shows nothing, or not what its legend promises.
func (m *monitored) answers(ctx context.Context, q query) error {
	result, warnings, _, err := m.api.Query(ctx, q.expr, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", q.expr, err)
	}
	if len(warnings) > 0 {
		return fmt.Errorf("%s: %q", q.expr, warnings)
	}
	found, ok := result.(model.Vector)
	if !ok || len(found) == 0 {
		return fmt.Errorf("%s: no series", q.expr)
	}
	if !slices.ContainsFunc(found, func(s *model.Sample) bool { return !math.IsNaN(float64(s.Value)) }) {
		return fmt.Errorf("%s: no number, only NaN", q.expr)
	}
	for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(q.legend, -1) {
		if !slices.ContainsFunc(found, func(s *model.Sample) bool { return s.Metric[model.LabelName(label[1])] != "" }) {
			return fmt.Errorf("%s: no series has the legend's label %s", q.expr, label[1])
		}
	}
	return nil
}

// labels says which label, that a query selects or groups by, its metric does not have.
func (m *monitored) labels(ctx context.Context, expr string) error {
	tree, err := m.parsed(ctx, expr)
	if err != nil {
		return err
	}
	for _, a := range asked(tree, nil) {
		expr := fmt.Sprintf("count(%s{%s!=\"\"})", a[0], a[1])
		result, _, _, err := m.api.Query(ctx, expr, time.Now())
		if err != nil {
			return err
		}
		if found, ok := result.(model.Vector); !ok || len(found) == 0 {
			return fmt.Errorf("%s has no label %s", a[0], a[1])
		}
	}
	return nil
}

// parsed is what Prometheus understands a query to be.
func (m *monitored) parsed(ctx context.Context, expr string) (any, error) {
	address := m.prometheus.URL + "/api/v1/parse_query?query=" + url.QueryEscape(expr)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	var answer struct {
		Error string
		Data  any
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Data, nil
}

// asked are the pairs of a metric and a label in a part of a query, and in what
// is below it. The labels are those that are grouped by around it.
func asked(part any, labels []string) (pairs [][2]string) {
	switch part := part.(type) {
	case []any:
		for _, each := range part {
			pairs = append(pairs, asked(each, labels)...)
		}
	case map[string]any:
		labels = append(slices.Clone(labels), texts(part["grouping"])...)
		if name, ok := part["name"].(string); ok && part["matchers"] != nil {
			for _, label := range append(labels, texts(part["matchers"])...) {
				if label != model.MetricNameLabel {
					pairs = append(pairs, [2]string{name, label})
				}
			}
			return pairs
		}
		for _, below := range part {
			pairs = append(pairs, asked(below, labels)...)
		}
	}
	return pairs
}

// texts are the strings in a list, or the names in it.
func texts(list any) (found []string) {
	each, ok := list.([]any)
	if !ok {
		return nil
	}
	for _, one := range each {
		if named, ok := one.(map[string]any); ok {
			one = named["name"]
		}
		if text, ok := one.(string); ok {
			found = append(found, text)
		}
	}
	return found
}
