package real_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// critestFocus are the specs of critest that are quick and need no more of an
// image than the tests' own program.
const critestFocus = `Idempotence|Runtime info|Image Consistency|Image Manager|Image Identifier|` +
	`basic operations on|set hostname|DNS config`

// critestSkip is the spec whose public image has a digest that nobody can build.
const critestSkip = "public image with digest"

// critestSpecs is how many of them must have passed directly for the comparison
// to say something.
const critestSpecs = 40

// critestStaging is where critest expects its own images.
const critestStaging = "gcr.io/k8s-staging-cri-tools/"

// testCritest runs the specs on a containerd and on both handlers of a proxy:
// what passes there must pass here. Critest removes images that other tests
// might use, so all its containerds are its own.
func testCritest(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	pushCritestImages(ctx, t, n)
	proxy := startProxy(ctx, t, n.Rig, "crit", startContainerd(ctx, t, n, "crit1"), startContainerd(ctx, t, n, "crit2"))
	direct := critest(ctx, t, n, startContainerd(ctx, t, n, "crit3").Endpoint(), "runc")
	if passed := count(direct, "passed"); passed < critestSpecs {
		t.Errorf("only %d specs passed on containerd alone, want at least %d", passed, critestSpecs)
	}
	for _, handler := range []string{"runc", second} {
		for spec, state := range critest(ctx, t, n, proxy.Endpoint(), handler) {
			if direct[spec] == "passed" && state != "passed" {
				t.Errorf("handler %s: %s: it %s, and passed directly", handler, spec, state)
			}
		}
	}
}

func pushCritestImages(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	images := map[string]rig.Image{
		"registry.k8s.io/e2e-test-images/busybox:1.29-2":         {},
		"registry.k8s.io/pause:3.9":                              {},
		critestStaging + "test-image-latest:latest":              {},
		critestStaging + "test-image-tag:test":                   {},
		critestStaging + "test-image-tag:all":                    {},
		critestStaging + "test-image-1:latest":                   {},
		critestStaging + "test-image-2:latest":                   {},
		critestStaging + "test-image-3:latest":                   {},
		critestStaging + "test-image-tags:1":                     {Identity: "tags"},
		critestStaging + "test-image-tags:2":                     {Identity: "tags"},
		critestStaging + "test-image-tags:3":                     {Identity: "tags"},
		critestStaging + "test-image-user-uid:latest":            {User: "1002"},
		critestStaging + "test-image-user-username:latest":       {User: "www-data"},
		critestStaging + "test-image-user-uid-group:latest":      {User: "1003:users"},
		critestStaging + "test-image-user-username-group:latest": {User: "www-data:www-data"},
	}
	for name, image := range images {
		if _, err := n.Push(ctx, name, image); err != nil {
			t.Fatal(err)
		}
	}
}

// critest returns the state of each spec that was run. That specs fail is no
// error here; that critest does not run is one.
func critest(ctx context.Context, t *testing.T, n *node, endpoint, handler string) map[string]string {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	cmd := exec.CommandContext(ctx, filepath.Join(n.Parts.CRITools, "critest.test"),
		"-runtime-endpoint", endpoint, "-image-endpoint", endpoint, "-runtime-handler", handler,
		"-runtime-service-timeout", "120s", "-ginkgo.focus", critestFocus, "-ginkgo.skip", critestSkip,
		"-ginkgo.json-report", report,
		"-ginkgo.randomize-all=false", "-ginkgo.no-color")
	output, runErr := cmd.CombinedOutput()
	content, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("critest wrote no report: %v\n%s", runErr, output)
	}
	states := readReport(t, content)
	if failed := count(states, "failed"); failed > 0 {
		t.Logf("%d specs failed on %s %s:\n%s", failed, endpoint, handler, summary(string(output)))
	}
	return states
}

func readReport(t *testing.T, content []byte) map[string]string {
	t.Helper()
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
		}
	}
	if err := json.Unmarshal(content, &suites); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			if spec.LeafNodeType == "It" && spec.State != "skipped" {
				states[strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")] = spec.State
			}
		}
	}
	return states
}

func count(states map[string]string, wanted string) int {
	counted := 0
	for _, state := range states {
		if state == wanted {
			counted++
		}
	}
	return counted
}

// summary is the end of critest's output, where it names what failed and why.
func summary(output string) string {
	if at := strings.LastIndex(output, "Summarizing"); at >= 0 {
		return output[at:]
	}
	return output
}
