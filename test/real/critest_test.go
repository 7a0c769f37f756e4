package real_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/critest"
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

// testCritest runs the specs on a containerd and on both handlers of a proxy:
// what passes there must pass here. Critest removes images that other tests
// might use, so all its containerds are its own.
func testCritest(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	if err := critest.PushShort(ctx, n.Rig); err != nil {
		t.Fatal(err)
	}
	proxy := startProxy(ctx, t, n.Rig, "crit", startContainerd(ctx, t, n, "crit1"), startContainerd(ctx, t, n, "crit2"))
	direct := runCritest(ctx, t, n, startContainerd(ctx, t, n, "crit3").Endpoint(), "runc")
	if passed := direct.Counts().Passed; passed < critestSpecs {
		t.Errorf("only %d specs passed on containerd alone, want at least %d", passed, critestSpecs)
	}
	for _, handler := range []string{"runc", second} {
		for _, lost := range direct.Lost(runCritest(ctx, t, n, proxy.Endpoint(), handler)) {
			t.Errorf("handler %s: %s: %s, and passed directly\n%s", handler, lost.Spec, lost.State, lost.Reason)
		}
	}
}

// runCritest returns what became of each of the quick specs.
func runCritest(ctx context.Context, t *testing.T, n *node, endpoint, handler string) critest.Report {
	t.Helper()
	report, err := critest.Run(ctx, critest.Options{
		Program: filepath.Join(n.Parts.CRITools, "critest.test"), Endpoint: endpoint, Handler: handler,
		Focus: critestFocus, Skip: critestSkip, Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}
