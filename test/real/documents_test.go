package real_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// documentTests are the names in "<!-- test: NAME -->", right above a block of a
// document: what stands in it, and what is done with it.
func documentTests() map[string]struct{ language, how string } {
	return map[string]struct{ language, how string }{
		"node":            {"sh", "TestDocuments: each line on a node with two real containerds, behind the built program"},
		"config":          {"toml", "TestDocuments: a whole configuration, for cri-proxy config validate"},
		"config-part":     {"toml", "TestDocuments: the same, with what it needs beside it"},
		"config-mistakes": {"toml", "TestDocuments: what cri-proxy config validate says of it is the next block"},
		"config-answer":   {"text", "TestDocuments: see config-mistakes"},
		"containerd":      {"toml", "TestDocuments: a part of containerd's configuration, for a real containerd"},
		"kubelet":         {"yaml", "TestDocuments: the kubelet's configuration file, for cri-proxy doctor; in make e2e, for a real kubelet"},
		"annotations":     {"yaml", "TestDocuments: annotations of a real pod"},
		"objects":         {"yaml", "TestDocuments: objects of Kubernetes, for its own strict decoder"},
		"unit":            {"ini", "TestDocuments: lines of the shipped systemd units"},
		"make":            {"sh", "TestDocumentedTargets: targets that are run by whom it says"},
		"journey":         {"sh", "make e2e-kind: a plain node with systemd, on which cri-proxy is installed"},
		"kind-config":     {"yaml", "TestDocuments: the part of the shipped cluster that counts"},
		"kind":            {"sh", "make e2e-kind: the cluster of make kind-up"},
		"monitoring":      {"sh", "the test of configs/monitoring"},
		"prometheus":      {"yaml", "the test of configs/monitoring"},
	}
}

// TestDocumentsAreTagged: each block of commands or configuration names a test,
// and no block is written in a way that the tests do not see.
func TestDocumentsAreTagged(t *testing.T) {
	t.Parallel()
	perFile := map[string]int{}
	for _, b := range documentBlocks(t) {
		perFile[b.File]++
		known, ok := documentTests()[b.Test]
		switch {
		case b.Test == "" && (b.Language == "" || b.Language == "text"): // A drawing, or what a command prints.
		case !ok:
			t.Errorf("%s:%d: a block of %s without a known test: write <!-- test: NAME --> right above it, with one of documentTests, which has %q", b.File, b.Line, b.Language, b.Test)
		case known.language != "" && known.language != b.Language:
			t.Errorf("%s:%d: test %s is for blocks of %s, and this one is %q", b.File, b.Line, b.Test, known.language, b.Language)
		}
	}
	for file, text := range documentTexts(t) {
		fences := len(regexp.MustCompile("(?m)^[ \t>*0-9.-]*(```|~~~)").FindAllString(text, -1))
		if fences != 2*perFile[file] {
			t.Errorf("%s has %d fences and %d blocks: one is indented, not closed, or written in another way", file, fences, perFile[file])
		}
		if indented := regexp.MustCompile(`(?m)^\n(?: {4,}|\t)\S.*$`).FindString(blanked(text)); indented != "" {
			t.Errorf("%s has a block without a fence: %q", file, strings.TrimSpace(indented))
		}
	}
}

// blanked is a document without what is between its fences.
func blanked(text string) string {
	return regexp.MustCompile("(?sm)^```.*?^```$").ReplaceAllString(text, "")
}

func documentBlocks(t *testing.T) []rig.Block {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := rig.Blocks(root)
	if err != nil || len(blocks) < 20 {
		t.Fatalf("%d blocks: %v", len(blocks), err)
	}
	return blocks
}

// documentTexts are the documents by their names.
func documentTexts(t *testing.T) map[string]string {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	texts := map[string]string{}
	for _, file := range append(files, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(file, root+"/")] = string(text)
	}
	return texts
}

// TestDocumentedTargets: each "make …" of a document is a target, and those that
// stand in a block are run, as they are, by CI or by a test.
func TestDocumentedTargets(t *testing.T) {
	t.Parallel()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	makefile := read(t, filepath.Join(root, "Makefile"))
	inline, line := regexp.MustCompile("`(?:sudo )?make ([a-z0-9-]+)"), regexp.MustCompile(`(?m)^make ([a-z0-9-]+)`)
	found := 0
	for file, text := range documentTexts(t) {
		for _, target := range inline.FindAllStringSubmatch(text, -1) {
			found++
			if !strings.Contains(makefile, "\n"+target[1]+":") {
				t.Errorf("%s: make has no target %s", file, target[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d targets are named", found)
	}
	runners := map[string]string{ // The target is a word in the file that runs it.
		"test": ".ci/run", "demo": ".ci/run", "build": "README.md", // The README by its block for TestDocuments.
		"kind-up": "test/real/kind/cluster.go", "kind-down": "test/real/kind/cluster.go", "dist": "test/tools/nfpm/package_test.go",
	}
	for _, b := range documentBlocks(t) {
		if b.Test != "make" {
			continue
		}
		for command := range strings.Lines(b.Text) {
			target := line.FindStringSubmatch(command)
			if target == nil || !strings.Contains(makefile, "\n"+target[1]+":") {
				t.Errorf("%s:%d: %q is no target of make", b.File, b.Line, command)
			} else if file := runners[target[1]]; file == "" || !regexp.MustCompile(`\b`+target[1]+`\b`).MatchString(read(t, filepath.Join(root, file))) {
				t.Errorf("%s:%d: nobody runs make %s: say who in this test", b.File, b.Line, target[1])
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocuments does what the documents say, from the documents themselves: on a
// node with two containerds, the README's configuration and its daemon.
//
//nolint:paralleltest,tparallel // One block after the other, as a reader does them: they share the node.
func TestDocuments(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	blocks := documentBlocks(t)
	d := newDocumented(ctx, t, blocks)
	tests := map[string]func(context.Context, *testing.T, *documented, rig.Block){
		"node": testNode, "config": testConfig, "config-part": testConfigPart, "config-mistakes": testMistakes,
		"containerd": testContainerd, "kubelet": testKubelet, "annotations": testAnnotations, "objects": testObjects, "kind-config": testKindConfig, "unit": testUnit,
	}
	ran := map[string]bool{}
	for _, b := range blocks {
		if test := tests[b.Test]; test != nil {
			ran[b.Test] = true
			t.Run(place(b), func(t *testing.T) { test(ctx, t, d, b) })
		}
	}
	if len(ran) != len(tests) {
		t.Errorf("blocks are only for %v", ran)
	}
}

// place is where a block stands, as the name of a test.
func place(b rig.Block) string {
	return strings.TrimSuffix(filepath.Base(b.File), ".md") + "-" + b.Test
}
