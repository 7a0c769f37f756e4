package kind_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/kind"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// guide is the document whose commands are executed, word for word.
const guide = "docs/install.md"

// journey is the life of an installation on one node of a cluster that was made
// without cri-proxy.
type journey struct {
	*cluster

	blocks   []rig.Block // of the guide that are its commands
	next     int         // of them
	releases []string    // folders with the packages of two versions
	bare     tree        // the node before anything of cri-proxy was on it
	packaged tree        // and with the package alone
	killed   time.Time   // when the proxy was
	pods     map[string]life
	caller   *kind.Caller
}

// versions are those of the packages.
const (
	oldVersion = "v0.0.1"
	newVersion = "v0.0.2"
)

// testJourney goes from a node without cri-proxy to one without it. Each part
// needs those before it.
func testJourney(ctx context.Context, t *testing.T, docker *kind.Docker, root string, parts rig.Parts) {
	t.Helper()
	j := newJourney(ctx, t, docker, root, parts)
	for _, part := range []struct {
		name string
		run  func(context.Context, *testing.T, *journey)
	}{
		{"package", testPackage},
		{"dry-run", testDryRun},
		{"install", testInstall},
		{"second-runtime", testSecondRuntime},
		{"reload", testReload},
		{"upgrade", testUpgrade},
		{"kill", testKill},
		{"second-runtime-away", testSecondAway},
		{"uninstall", testUninstall},
		{"remove", testRemove},
		{"one-file", testOneFile},
		{"broken", testBroken},
		{"killed-install", testKilledInstall},
		{"by-hand", testByHand},
		{"backup", testBackup},
		{"emergency", testEmergency},
		{"emergency-installed", testEmergencyInstalled},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(ctx, t, j) }) {
			return
		}
	}
	if j.next != len(j.blocks) {
		t.Errorf("%s, line %d, and all that follows: not executed", guide, j.blocks[j.next].Line)
	}
}

// newJourney makes the packages and the cluster, with a pod that is to live on.
func newJourney(ctx context.Context, t *testing.T, docker *kind.Docker, root string, parts rig.Parts) *journey {
	t.Helper()
	j := &journey{blocks: blocksOf(t, root, guide, "journey"), pods: map[string]life{}}
	var err error
	if j.releases, err = docker.Packages(ctx, root, t.Output(), oldVersion, newVersion); err != nil {
		t.Fatal(err)
	}
	plain, err := docker.Plain(ctx, root, parts, "journey", t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			plain.Logs(context.WithoutCancel(ctx), t.Output())
		}
	})
	j.cluster = &cluster{Cluster: plain, root: root}
	if err := plain.ProgramImage(ctx, root, appImage, "app", "/bin/serve"); err != nil {
		t.Fatal(err)
	}
	if err := plain.Load(ctx, appImage); err != nil {
		t.Fatal(err)
	}
	wait(ctx, t, func() error { return j.get(ctx, &struct{}{}, "serviceaccount", "default") })
	j.startPod(ctx, t, "before", "")
	j.bare = j.tree(ctx, t)
	return j
}

// do executes the next commands of the guide, which have this text in them.
func (j *journey) do(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	if j.next == len(j.blocks) {
		t.Fatalf("%s has no more commands, want those with %q", guide, text)
	}
	block := j.blocks[j.next]
	if !strings.Contains(block.Text, text) {
		t.Fatalf("%s, line %d: the next commands are not those with %q but\n%s", guide, block.Line, text, block.Text)
	}
	j.next++
	return j.execute(ctx, t, block)
}

// again executes commands that were executed before.
func (j *journey) again(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for _, block := range j.blocks[:j.next] {
		if strings.Contains(block.Text, text) {
			j.execute(ctx, t, block)
			return
		}
	}
	t.Fatalf("%s has no commands with %q that were executed", guide, text)
}

func (j *journey) execute(ctx context.Context, t *testing.T, block rig.Block) string {
	t.Helper()
	text, err := j.Shell(ctx, j.Control(), "/root", block.Text)
	t.Logf("%s, line %d:\n%s---\n%s", block.File, block.Line, block.Text, text)
	if err != nil {
		t.Fatalf("%s, line %d: %v", block.File, block.Line, err)
	}
	return text
}

// shell is a script of the test's own in the node.
func (j *journey) shell(ctx context.Context, t *testing.T, script string) string {
	t.Helper()
	text, err := j.Shell(ctx, j.Control(), "/root", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, text)
	}
	return text
}

// refused runs a script that has to fail, and returns what it says.
func (j *journey) refused(ctx context.Context, t *testing.T, script string) string {
	t.Helper()
	text, err := j.Shell(ctx, j.Control(), "/root", script)
	if code := exitCode(err); code != 1 {
		t.Fatalf("%s: exit code %d (%v), want 1\n%s", script, code, err, text)
	}
	return text
}

// bring copies what matches to the node's /root, in the place of what it has.
func (j *journey) bring(ctx context.Context, t *testing.T, folder, pattern string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q in %s: %v, want one file", found, folder, err)
	}
	j.shell(ctx, t, "rm -f "+pattern)
	if _, err := j.Run(ctx, nil, "cp", found[0], j.Control()+":/root/"); err != nil {
		t.Fatal(err)
	}
}
