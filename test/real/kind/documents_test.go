package kind_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/kind"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// blocksOf are the blocks of a document that name a test.
func blocksOf(t *testing.T, root, file, test string) (found []rig.Block) {
	t.Helper()
	all, err := rig.Blocks(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range all {
		if block.File == file && block.Test == test {
			found = append(found, block)
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no blocks for the test %s", file, test)
	}
	return found
}

// page is what users of kind read. Its commands are executed word for word, each
// by the part of the test that is about the same.
const page = "docs/kind.md"

// as executes the commands of the page with this text in them, as a user types
// them in the repository, and returns what they print.
func (c *cluster) as(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	for i, block := range c.page {
		if !strings.Contains(block.Text, text) {
			continue
		}
		c.read[i] = true
		printed, err := c.User(ctx, block.Text)
		t.Logf("%s, line %d:\n%s---\n%s", page, block.Line, block.Text, printed)
		if err != nil {
			t.Fatalf("%s, line %d: %v", page, block.Line, err)
		}
		return printed
	}
	t.Fatalf("%s has no commands with %q", page, text)
	return ""
}

// testPage: what the page says of a cluster that was just made.
func testPage(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	said := c.as(ctx, t, "crictl pods")
	for _, part := range []string{
		" crun runc second\n", " crun\n", " second\n", "runc (default)  containerd", "-address /run/containerd/containerd.sock", "-address /run/containerd-second/containerd.sock",
	} {
		wantContains(t, said, part)
	}
}

// testPageByHand makes the cluster by hand. Two files are changed: this machine
// has another base image, and restrictions.
func testPageByHand(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	c.as(ctx, t, "mkdir -p bin/my-node")
	folder := filepath.Join(c.root, "bin", "my-node")
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	recipe, err := os.ReadFile(filepath.Join(folder, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	recipe = regexp.MustCompile(`(?m)^ARG BASE=.*$`).ReplaceAll(recipe, []byte("ARG BASE="+kind.Base))
	config, err := os.ReadFile(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"Dockerfile": recipe, "cluster.yaml": config} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.as(ctx, t, "docker build --tag my-node .")
	c.ready(ctx, t, "pod/example-runc", "pod/example-crun", "pod/example-second")
	if text, err := c.User(ctx, "kind delete cluster"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// testPageRead: there is nothing on the page that no part has executed.
func testPageRead(_ context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for i, block := range c.page {
		if !c.read[i] {
			t.Errorf("%s, line %d: not executed:\n%s", page, block.Line, block.Text)
		}
	}
}
