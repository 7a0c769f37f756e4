package real_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// TestCloseLeavesNothing closes a rig in its worst state: a pod runs, and its
// containerd was killed. What each rig leaves is checked after each test; here
// it is made hard.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	killed := startContainerd(ctx, t, n, "killed")
	c, image := crictl(t, n, killed.Endpoint()), pushImage(ctx, t, n)
	run(ctx, t, c, "pull", image.name)
	startPod(ctx, t, n, c, second, image)
	if found := leftovers(t, n.Rig); len(found) < 5 {
		t.Errorf("of a running pod only this is found: %q", found)
	}
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
}

// TestEmpty takes a containerd's disk away under a running pod.
func TestEmpty(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	emptied := startContainerd(ctx, t, n, "emptied")
	c, image := crictl(t, n, emptied.Endpoint()), pushImage(ctx, t, n)
	run(ctx, t, c, "pull", image.name)
	startPod(ctx, t, n, c, "runc", image)
	for _, do := range []func() error{emptied.Stop, func() error { return emptied.Empty(ctx) }, func() error { return emptied.Start(ctx) }} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, run(ctx, t, c, "pods", "-q"))
	wantImage(ctx, t, c, image, false)
}

// leftovers is what a rig has left on the machine: processes by their command
// line and cgroup, mounts, bridges, cgroups, CNI's memory and its
// folder.
func leftovers(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	found := append(below(t, r.Dir), mentioned(t, r)...)
	found = append(found, glob(t, filepath.Join("/sys/fs/cgroup", r.CgroupParent()))...)
	found = append(found, glob(t, filepath.Join("/sys/fs/cgroup/*", r.CgroupParent()))...)
	found = append(found, glob(t, "/var/lib/cni/results/"+filepath.Base(r.Dir)+"[a-z]-*")...)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.TrimRight(link.Name, "abcdefgh") == filepath.Base(r.Dir) {
			found = append(found, "bridge "+link.Name)
		}
	}
	return append(found, glob(t, r.Dir)...)
}

// below are the mounts in a folder.
func below(t *testing.T, folder string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, folder+"/") {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	return found
}

// mentioned are the processes that name the rig's folder in their command line
// or that live in its cgroups.
func mentioned(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	var found []string
	for file, name := range map[string]string{"cmdline": r.Dir, "cgroup": r.CgroupParent()} {
		for _, path := range glob(t, "/proc/[0-9]*/"+file) {
			content, err := os.ReadFile(path)
			text := strings.ReplaceAll(string(content), "\x00", " ")
			// A group that is gone holds only the dead that init has not buried yet.
			if err == nil && strings.Contains(text, name) && !strings.HasSuffix(text, "(deleted)\n") {
				found = append(found, "process "+path+": "+text)
			}
		}
	}
	return found
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
