// Package nfpm pins the packager, and tests what it packed.
package nfpm

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dpkg is a node's directory that dpkg works in, so that the machine's own
// packages stay as they are.
type dpkg struct {
	*testing.T
	root string
	deb  string
}

func newDpkg(t *testing.T) *dpkg {
	t.Helper()
	dist := os.Getenv("DIST")
	if dist == "" {
		t.Skip(`LEFT OUT: there is no package to test; "make dist" makes one and runs this`)
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("LEFT OUT: the .deb is tested with dpkg, which is not here")
	}
	debs, err := filepath.Glob(filepath.Join(dist, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%s has the packages %q, want one (%v)", dist, debs, err)
	}
	d := &dpkg{T: t, root: t.TempDir(), deb: debs[0]}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"} {
		if err := os.MkdirAll(filepath.Join(d.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.write("var/lib/dpkg/status", "")
	d.write("var/lib/dpkg/available", "")
	return d
}

func (d *dpkg) write(name, text string) {
	d.Helper()
	path := filepath.Join(d.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.Fatal(err)
	}
}

func (d *dpkg) run(args ...string) (string, error) {
	d.Helper()
	args = append([]string{"--root=" + d.root, "--log=" + filepath.Join(d.root, "var/log"), "--force-not-root", "--force-script-chrootless", "--force-architecture"}, args...)
	out, err := exec.CommandContext(d.Context(), "dpkg", args...).CombinedOutput()
	return string(out), err
}

func (d *dpkg) mustRun(args ...string) {
	d.Helper()
	if out, err := d.run(args...); err != nil {
		d.Fatalf("dpkg %q: %v\n%s", args, err, out)
	}
}

// files are all but dpkg's own.
func (d *dpkg) files() map[string]fs.FileMode {
	d.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, d.root)
		if err != nil || entry.IsDir() || strings.HasPrefix(name, "/var/lib/dpkg/") || name == "/var/log" {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			found[name] = info.Mode()
		}
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
	return found
}

func TestDeb(t *testing.T) {
	t.Parallel()
	d := newDpkg(t)
	d.mustRun("-i", d.deb)
	files := d.files()
	for _, name := range []string{
		"/usr/bin/cri-proxy", "/usr/lib/systemd/system/cri-proxy.service", "/usr/lib/systemd/system/cri-proxy.socket",
		"/usr/share/man/man1/cri-proxy.1.gz", "/usr/share/man/man1/cri-proxy-run.1.gz", "/usr/share/bash-completion/completions/cri-proxy",
		"/usr/share/doc/cri-proxy/config.toml", "/usr/share/doc/cri-proxy/monitoring/alerts.yaml", "/usr/share/doc/cri-proxy/copyright",
	} {
		if _, ok := files[name]; !ok {
			t.Errorf("the package has no %s, only %q", name, slices.Sorted(maps.Keys(files)))
		}
	}
	for name, mode := range files {
		if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[name == "/usr/bin/cri-proxy"]; mode != want {
			t.Errorf("%s has the mode %s, want %s", name, mode, want)
		}
		if strings.HasPrefix(name, "/etc/") {
			t.Errorf("%s is the administrator's, or enables something", name)
		}
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(d.root, "usr/bin/cri-proxy"), "config", "validate", "--config", filepath.Join(d.root, "usr/share/doc/cri-proxy/config.toml")).CombinedOutput()
	if err != nil {
		t.Errorf("the installed program: %v\n%s", err, out)
	}
	d.mustRun("-i", d.deb) // An upgrade.
	d.write("etc/cri-proxy/config.toml", "version = 1\n")
	d.mustRun("-r", "cri-proxy")
	if left := slices.Sorted(maps.Keys(d.files())); !slices.Equal(left, []string{"/etc/cri-proxy/config.toml"}) {
		t.Errorf("a removal left %q", left)
	}
	d.mustRun("-P", "cri-proxy")
	if left := d.files(); len(left) > 0 {
		t.Errorf("a purge left %v", left)
	}
}

// TestDebInUse: a kubelet is not left without its runtime.
func TestDebInUse(t *testing.T) {
	t.Parallel()
	d := newDpkg(t)
	d.mustRun("-i", d.deb)
	d.write("var/lib/cri-proxy/install/manifest.json", "{}")
	out, err := d.run("-r", "cri-proxy")
	if err == nil || !strings.Contains(out, `run "cri-proxy uninstall" first`) {
		t.Errorf("the package of a node in use was removed: %v\n%s", err, out)
	}
	if _, ok := d.files()["/usr/bin/cri-proxy"]; !ok {
		t.Error("the program is gone")
	}
	d.mustRun("-i", d.deb) // An upgrade is fine.
}

// TestChecksums: what is in the directory is what the list says.
func TestChecksums(t *testing.T) {
	t.Parallel()
	d := newDpkg(t)
	check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = filepath.Dir(d.deb)
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != 4 {
		t.Errorf("want four files that are right: %v\n%s", err, out)
	}
}
