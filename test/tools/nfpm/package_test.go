// Package nfpm pins the packager, and tests what it packed.
package nfpm

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain says what is left out even where nobody reads the results of each test.
func TestMain(m *testing.M) {
	for program, format := range map[string]string{"dpkg": ".deb", "rpm": ".rpm"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(os.Stderr, "LEFT OUT: the tests of the %s; they need %s: sudo make dist-deps\n", format, program)
		}
	}
	os.Exit(m.Run())
}

// each runs a test on a new node of each package manager.
func each(t *testing.T, test func(*node)) {
	t.Helper()
	for _, m := range managers() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			test(newNode(t, m))
		})
	}
}

const (
	reload  = "daemon-reload\n"
	disable = "disable --now cri-proxy.service cri-proxy.socket\n"
)

// wantAsked holds what systemctl was asked, which is nothing where scripts are told
// that the machine is another one.
func (n *node) wantAsked(want string) {
	n.Helper()
	if !n.chroot {
		want = ""
	}
	if got := n.asked(); got != want {
		n.Errorf("systemctl was asked %q, want %q", got, want)
	}
}

// TestScripts: what the packages do on a node besides their files.
func TestScripts(t *testing.T) {
	t.Parallel()
	each(t, func(n *node) {
		first, second := small(n.T, n.format, "v1.0.0"), small(n.T, n.format, "v2.0.0")
		n.mustRun(n.install, first)
		n.wantAsked(reload)
		n.mustRun(n.install, second) // The scripts of both are run.
		n.wantAsked(reload + reload)
		n.mustRun(n.install, second)
		n.wantAsked(reload + reload)
		n.mustRun(n.install, first)
		n.wantAsked(reload + reload)
		n.mustRun(n.remove)
		n.wantAsked(disable + reload)
		n.mustRun(n.install, first)
		n.wantAsked(reload)
		n.delete("run/systemd")
		n.mustRun(n.remove)
		n.wantAsked("")
	})
}

// TestVersionsBeside: rpm can have several versions, and counts those that stay.
func TestVersionsBeside(t *testing.T) {
	t.Parallel()
	n := newNode(t, rpm("rpm"))
	for _, version := range []string{"v1.0.0", "v2.0.0", "v3.0.0"} {
		n.mustRun([]string{n.install[0], "-i", "--force"}, small(t, n.format, version))
		n.wantAsked(reload)
	}
	for _, version := range []string{"1.0.0", "2.0.0"} {
		n.mustRun([]string{n.install[0], "-e"}, "cri-proxy-"+version)
		n.wantAsked(reload)
	}
	n.mustRun(n.remove)
	n.wantAsked(disable + reload)
}

// TestInUse: a kubelet is not left without its runtime.
func TestInUse(t *testing.T) {
	t.Parallel()
	each(t, func(n *node) {
		n.mustRun(n.install, small(n.T, n.format, "v1.0.0"))
		const flag = `KUBELET_EXTRA_ARGS="--container-runtime-endpoint=unix:///run/cri-proxy/cri-proxy.sock"`
		for _, file := range []struct{ name, text, want string }{
			{"/var/lib/cri-proxy/install/manifest.json", "{}", `run "cri-proxy uninstall" first`},
			{"/var/lib/kubelet/config.yaml", "a: 1\ncontainerRuntimeEndpoint: unix:///run/cri-proxy/cri-proxy.sock\n", "/var/lib/kubelet/config.yaml"},
			{"/var/lib/kubelet/kubeadm-flags.env", flag, "/var/lib/kubelet/kubeadm-flags.env"},
			{"/etc/default/kubelet", flag, "/etc/default/kubelet"},
			{"/etc/sysconfig/kubelet", flag, "/etc/sysconfig/kubelet"},
		} {
			n.write(file.name, file.text)
			n.asked()
			out, err := n.run(n.remove...)
			if err == nil || !strings.Contains(out, file.want) {
				n.Errorf("%s: the package of a node in use was removed: %v\n%s", file.name, err, out)
			}
			if _, ok := n.files()["/usr/bin/cri-proxy"]; !ok {
				n.Fatalf("%s: the program is gone", file.name)
			}
			if calls := n.asked(); strings.Contains(calls, "disable") {
				n.Errorf("%s: the proxy was stopped: %q", file.name, calls)
			}
			n.mustRun(n.install, small(n.T, n.format, "v2.0.0")) // An upgrade is fine.
			n.mustRun(n.install, small(n.T, n.format, "v2.0.0"))
			n.delete(file.name)
		}
		n.write("/var/lib/kubelet/config.yaml", "# unix:///run/cri-proxy/cri-proxy.sock\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
		n.mustRun(n.remove)
	})
}

// TestDist installs and removes what "make dist" packed.
func TestDist(t *testing.T) {
	t.Parallel()
	each(t, func(n *node) {
		file := packed(n.T, "*."+n.format)
		n.mustRun(n.install, small(n.T, n.format, "v0.0.0-0"))
		n.mustRun(n.install, file)
		n.mustRun(n.verify)
		files := n.files()
		for _, name := range []string{
			"/usr/bin/cri-proxy", "/usr/lib/systemd/system/cri-proxy.service", "/usr/lib/systemd/system/cri-proxy.socket",
			"/usr/share/man/man1/cri-proxy.1.gz", "/usr/share/man/man1/cri-proxy-run.1.gz", "/usr/share/bash-completion/completions/cri-proxy",
			"/usr/share/doc/cri-proxy/config.toml", "/usr/share/doc/cri-proxy/monitoring/alerts.yaml", "/usr/share/doc/cri-proxy/copyright",
		} {
			if _, ok := files[name]; !ok {
				n.Errorf("the package has no %s, only %q", name, slices.Sorted(maps.Keys(files)))
			}
		}
		for name, mode := range files {
			if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[mode.IsDir() || name == "/usr/bin/cri-proxy"]; mode.Perm() != want {
				n.Errorf("%s has the mode %s, want %s", name, mode, want)
			}
			if strings.HasPrefix(name, "/etc/") {
				n.Errorf("%s is the administrator's, or enables something", name)
			}
		}
		n.validates()
		n.write("/etc/cri-proxy/config.toml", "version = 1\n")
		n.write("/var/lib/cri-proxy/state.db", "")
		if err := os.MkdirAll(filepath.Join(n.root, "run/cri-proxy"), 0o755); err != nil { // As systemd makes it.
			n.Fatal(err)
		}
		n.mustRun(n.remove)
		kept := []string{"/etc/cri-proxy", "/etc/cri-proxy/config.toml", "/var/lib/cri-proxy", "/var/lib/cri-proxy/state.db"}
		if left := slices.Sorted(maps.Keys(n.files())); !slices.Equal(left, kept) {
			n.Errorf("a removal left %q, want %q", left, kept)
		}
		if n.purge == nil {
			return
		}
		n.mustRun(n.purge)
		if left := n.files(); len(left) > 0 {
			n.Errorf("a purge left %v", left)
		}
	})
}

// validates runs the installed program on the installed configuration.
func (n *node) validates() {
	n.Helper()
	program := filepath.Join(n.root, "usr/bin/cri-proxy")
	if !native(n.T, program) {
		fmt.Fprintf(os.Stderr, "LEFT OUT: the program that %s installed is not run; it is for another machine\n", n.name)
		return
	}
	out, err := exec.CommandContext(n.Context(), program, "config", "validate", "--config", filepath.Join(n.root, "usr/share/doc/cri-proxy/config.toml")).CombinedOutput()
	if err != nil {
		n.Errorf("the installed program: %v\n%s", err, out)
	}
}
