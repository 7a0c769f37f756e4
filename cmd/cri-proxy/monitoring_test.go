package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// TestMonitoringNamesWhatIsThere: every metric and every label in the dashboard and
// in the alert rules is in a scrape of a daemon that has done each kind of work.
// That they are valid PromQL is the test of test/tools/rulefmt.
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
