package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// TestMonitoringNamesWhatIsThere: every metric and every label in the dashboard and
// in the alert rules is in a scrape of a daemon that has done each kind of work.
// That they are valid PromQL is the test of test/tools/prometheus.
func TestMonitoringNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	scraped := scrapeOfEverything(t)
	metrics := 0
	for _, file := range []string{"dashboard.json", "alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "configs", "monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		for name, labels := range selectors(strings.ReplaceAll(string(text), `\"`, `"`)) {
			metrics++
			checkSelector(t, file, scraped, name, labels)
		}
	}
	if metrics < 20 {
		t.Errorf("only %d metrics were found", metrics)
	}
}

// scrapeOfEverything is a daemon's metrics after a pod with a hook, a pull and a list.
func scrapeOfEverything(t *testing.T) samples {
	t.Helper()
	services := filepath.Join(t.TempDir(), "services.yaml")
	if err := os.WriteFile(services, []byte(servicesAt("10.0.0.1")), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := hookedWith(t, fromFile(services), hook("post_start", command("register"))+"[handlers.runc.service_env]\nenabled = true\n[handlers.runc.images]\nmax_parallel_pulls = 1\n")
	_, container := p.container("runc")
	if err := p.startContainer(container); err != nil {
		t.Fatal(err)
	}
	p.delivery(journal.PostStart, journal.Delivered)
	if _, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "fresh"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}); err != nil {
		t.Fatal(err)
	}
	var got samples
	eventually(t, "the list is counted", func() bool {
		got = p.scrape()
		return len(got.of("cri_proxy_list_bytes_count")) > 0
	})
	return got
}

// TestCountsBeginAtZero: Prometheus sees no increase from nothing to 1, so what
// has not happened is counted too. A handler that a reload adds is like the others;
// one that it could not add is not there.
func TestCountsBeginAtZero(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	added, _ := third(t)
	counts := func() []float64 {
		scraped := p.scrape()
		var found []float64
		for _, series := range []string{
			`cri_proxy_pulls_total{handler="runc",result="failed"}`,
			`cri_proxy_pulls_total{handler="third",result="failed"}`,
			`cri_proxy_pulled_bytes_total{handler="third"}`,
			`cri_proxy_hook_deliveries_total{event="PreStop",handler="runc",result="failed"}`,
			`cri_proxy_hook_deliveries_total{event="PreStop",handler="third",result="failed"}`,
		} {
			value, ok := scraped[series]
			if !ok {
				value = -1
			}
			found = append(found, value)
		}
		return found
	}
	want := func(when string, want ...float64) {
		t.Helper()
		if diff := cmp.Diff(want, counts()); diff != "" {
			t.Errorf("%s (-want +got, -1 is nothing):\n%s", when, diff)
		}
	}
	want("at the start", 0, -1, -1, -1, -1)
	if err := p.reloadText(p.config + added + "hooks = 1\n"); err == nil {
		t.Error("a mistake was taken over")
	}
	want("after a reload that failed", 0, -1, -1, -1, -1)
	if err := p.reloadText(p.config + added + "[handlers.third.hooks]\nallow_pod_hooks = true\n"); err != nil {
		t.Fatal(err)
	}
	want("after the reload", 0, 0, 0, -1, 0)
}

// TestMetricsAreDocumented: the table of metrics has each one that the daemon
// exports, with its labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(monitoringDocument(t), "\n## Metrics\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]*)({([a-z,]*)})?` \\|").FindAllStringSubmatch(table, -1) {
		documented = append(documented, withLabels(row[1], strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' })))
	}
	slices.Sort(documented)
	if diff := cmp.Diff(exported(scrapeOfEverything(t)), documented); diff != "" {
		t.Errorf("the metrics of docs/monitoring.md (-exported +documented):\n%s", diff)
	}
}

// withLabels is how the tests write a metric and its labels.
func withLabels(name string, labels []string) string {
	slices.Sort(labels)
	return name + "{" + strings.Join(labels, ",") + "}"
}

// exported are the proxy's own metrics in a scrape, with their labels. Of a
// histogram all parts are one.
func exported(scraped samples) []string {
	label := regexp.MustCompile(`([a-z_]+)="`)
	found := map[string]bool{}
	for series := range scraped {
		name, rest, _ := strings.Cut(series, "{")
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, part); len(scraped.of(base+"_bucket")) > 0 {
				name = base
			}
		}
		var labels []string
		for _, l := range label.FindAllStringSubmatch(rest, -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		if strings.HasPrefix(name, "cri_proxy_") {
			found[withLabels(name, labels)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestAlertsAreDocumented: each alert has a section of its own, which it links to,
// and there is no section of another.
func TestAlertsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", "monitoring", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	var alerts, sections []string
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Alert)
			link := "https://github.com/cri-proxy/cri-proxy/blob/main/docs/monitoring.md#" + strings.ToLower(rule.Alert)
			if got := rule.Annotations["runbook_url"]; got != link {
				t.Errorf("%s links to %q, want %q", rule.Alert, got, link)
			}
		}
	}
	_, part, _ := strings.Cut(monitoringDocument(t), "\n## Alerts\n")
	part, _, _ = strings.Cut(part, "\n## ")
	for _, section := range strings.Split(part, "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		sections = append(sections, name)
		if !strings.Contains(body, "\nDo: ") {
			t.Errorf("the section of %s does not say what to do", name)
		}
	}
	if diff := cmp.Diff(alerts, sections); diff != "" || len(alerts) < 10 {
		t.Errorf("the alerts of docs/monitoring.md (-rules +sections):\n%s", diff)
	}
}

func monitoringDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// selectors returns the metrics in a text and the labels that each is asked by.
func selectors(text string) map[string][]string {
	label := regexp.MustCompile(`([a-z_]+) *(?:=~|!~|!=|=) *"`)
	found := map[string][]string{}
	for _, m := range regexp.MustCompile(`\b((?:cri_proxy|process|go)_[a-z_]+)(\{[^}]*\})?`).FindAllStringSubmatch(text, -1) {
		found[m[1]] = append(found[m[1]], "")
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			found[m[1]] = append(found[m[1]], l[1])
		}
	}
	return found
}

func checkSelector(t *testing.T, file string, scraped samples, name string, labels []string) {
	t.Helper()
	of := scraped.of(name)
	if len(of) == 0 {
		t.Errorf("%s: no metric %s is exported", file, name)
		return
	}
	example := slices.Sorted(maps.Keys(of))[0]
	for _, label := range labels {
		switch label {
		case "", "instance", "job": // Prometheus' own.
		default:
			if !strings.Contains(example, label+`="`) {
				t.Errorf("%s: %s has no label %s, only %s", file, name, label, example)
			}
		}
	}
}
