package install

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const madeConfig = `# Made by cri-proxy install from the runtime containerd v2.4.2.
# cri-proxy config default explains every key.
version = 1
default_handler = "runc"

[backends.runtime]
endpoint = "unix:///run/containerd/containerd.sock"

[handlers."kata"]
backend = "runtime"

[handlers."runc"]
backend = "runtime"

[handlers."runsc"]
backend = "runtime"
`

func TestInstallAndUninstall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.tree()
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	const endpoint = "unix:///run/cri-proxy/cri-proxy.sock"
	old := "unix:///run/containerd/containerd.sock"
	want := map[string]string{
		"/etc/cri-proxy/config.toml":               madeConfig,
		"/etc/systemd/system/cri-proxy.service":    string(configs.ServiceUnit()),
		"/etc/systemd/system/cri-proxy.socket":     string(configs.SocketUnit()),
		"/var/lib/kubelet/config.yaml":             strings.ReplaceAll(kubeletConfig, old, endpoint),
		"/var/lib/kubelet/instance-config.yaml":    strings.ReplaceAll(instanceConfig, old, endpoint),
		"/var/lib/kubelet/kubeadm-flags.env":       strings.ReplaceAll(kubeadmFlags, old, endpoint),
		"/var/lib/cri-proxy/install/3-config.yaml": kubeletConfig,
	}
	for file, text := range want {
		if diff := cmp.Diff(text, n.read(file)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	commands := []string{"daemon-reload", "enable cri-proxy.socket cri-proxy.service", "restart cri-proxy.service", "restart kubelet.service"}
	if diff := cmp.Diff(commands, n.asked()); diff != "" {
		t.Errorf("systemctl (-want +got):\n%s", diff)
	}
	if _, err := NewPlan(t.Context(), n.o); !errors.Is(err, ErrInstalled) {
		t.Errorf("a second installation: %v", err)
	}
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("the node before and after (-before +after):\n%s", diff)
	}
	commands = append(commands, "restart kubelet.service", "stop cri-proxy.service cri-proxy.socket", "disable cri-proxy.socket cri-proxy.service", "daemon-reload")
	if diff := cmp.Diff(commands, n.asked()); diff != "" {
		t.Errorf("systemctl (-want +got):\n%s", diff)
	}
	if err := Uninstall(t.Context(), n.o); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("a second removal: %v", err)
	}
}

// TestFailureAtEveryStep: the node is as it was, to the byte, whatever fails.
func TestFailureAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, name := range stepNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.o.Failpoint = func(step string) error {
				if step == name {
					return errors.New("planted")
				}
				return nil
			}
			n.failsAndIsUndone(t.Context(), "planted")
		})
		if command, ok := strings.CutPrefix(name, "systemctl "); ok && command != "daemon-reload" && !strings.Contains(command, "kubelet") {
			t.Run(name+" itself", func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				n.set("fails", command)
				n.failsAndIsUndone(t.Context(), "it is planned to fail")
			})
		}
		t.Run(name+", interrupted", func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n.o.Failpoint = func(step string) error {
				if step == name {
					cancel()
				}
				return ctx.Err()
			}
			n.failsAndIsUndone(ctx, context.Canceled.Error())
		})
	}
}

// stepNames are the steps that can fail; there have to be some of each kind.
func stepNames(t *testing.T) (all []string) {
	t.Helper()
	for _, s := range newNode(t).plan().steps() {
		if s.do != nil {
			all = append(all, s.name)
		}
	}
	for _, name := range []string{"remember", "write /etc/cri-proxy/config.toml", "wait for the proxy", "write /var/lib/kubelet/config.yaml", "watch the node"} {
		if !slices.Contains(all, name) {
			t.Fatalf("there is no step %q among %q", name, all)
		}
	}
	return all
}

func (n *testNode) failsAndIsUndone(ctx context.Context, why string) {
	n.Helper()
	before := n.tree()
	err := n.plan().Install(ctx) //nolint:contextcheck // The plan is the test's; only its execution is interrupted.
	if err == nil || !strings.Contains(err.Error(), why) || !strings.HasSuffix(err.Error(), "everything is as it was before") {
		n.Fatalf("got the error %v", err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		n.Errorf("the node before and after (-before +after):\n%s", diff)
	}
	asked := n.asked()
	last := func(command string) int { return slices.Index(slices.Collect(reversed(asked)), command) }
	if slices.Contains(asked, "enable cri-proxy.socket cri-proxy.service") && last("disable cri-proxy.socket cri-proxy.service") != 1 {
		n.Errorf("the units were enabled and not disabled: %q", asked)
	}
	if restarts := strings.Count(strings.Join(asked, "\n"), "restart kubelet.service"); restarts == 1 && strings.Contains(n.out.String(), "watch") {
		n.Errorf("the kubelet was not led back: %q", asked)
	}
}

// TestNodeThatDoesNotComeBack: what only shows when it runs is undone too.
func TestNodeThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		breakIt func(n *testNode)
		why     string
	}{
		{"the proxy does not answer", func(n *testNode) { n.proxy.Stop() }, "wait for the proxy"},
		{"the proxy's runtime is not ready", func(n *testNode) {
			n.proxy.Configure(func(o *fakeruntime.Options) { o.Conditions = notReady() })
		}, "the runtime is not ready"},
		{"the kubelet ends", func(n *testNode) { n.set("active", "3") }, "kubelet.service is not active"},
		{"the kubelet goes elsewhere", func(n *testNode) {
			n.o.Failpoint = func(step string) error {
				if step == "systemctl restart kubelet.service" {
					n.set("log", "restart kubelet.service\nrestart something.else\n") // No more lists are counted.
				}
				return nil
			}
		}, "does not list its pods through the proxy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.o.Patience = time.Second
			tt.breakIt(n)
			before := n.tree()
			err := n.plan().Install(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.why) || !strings.Contains(err.Error(), "not within 1s") {
				t.Fatalf("got the error %v", err)
			}
			if diff := cmp.Diff(before, n.tree()); diff != "" {
				t.Errorf("the node before and after (-before +after):\n%s", diff)
			}
		})
	}
}

// TestEditedConfigurationStays when the rest is taken away.
func TestEditedConfigurationStays(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write("/etc/cri-proxy/config.toml", madeConfig+"# ours\n", 0o644)
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	if got := n.read("/etc/cri-proxy/config.toml"); got != madeConfig+"# ours\n" {
		t.Errorf("the configuration is now\n%s", got)
	}
	if !strings.Contains(n.out.String(), "/etc/cri-proxy/config.toml was edited") {
		t.Errorf("nobody was told:\n%s", n.out.String())
	}
}

// TestExistingConfiguration is used as it is.
func TestExistingConfiguration(t *testing.T) {
	t.Parallel()
	const own = "version = 1\ndefault_handler = \"x\"\n[server]\nlisten = \"/run/cri-proxy/cri-proxy.sock\"\nsocket_mode = \"0600\"\n" +
		"[backends.a]\nendpoint = \"/run/containerd/containerd.sock\"\n[handlers.x]\nbackend = \"a\"\nruntime = \"\"\n"
	n := newNode(t)
	n.write("/etc/cri-proxy/config.toml", own, 0o640)
	before := n.tree()
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.read("/etc/cri-proxy/config.toml"); got != own {
		t.Errorf("the configuration is now\n%s", got)
	}
	if unit := n.read("/etc/systemd/system/cri-proxy.socket"); !strings.Contains(unit, "\nSocketMode=0600\n") {
		t.Errorf("the socket unit does not say what the configuration says:\n%s", unit)
	}
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("the node before and after (-before +after):\n%s", diff)
	}
}

// TestSocketDirectory: what systemd makes for the sockets goes with them.
func TestSocketDirectory(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("/etc/cri-proxy/config.toml", madeConfig+"[server]\nlisten = \"/run/other/cri-proxy.sock\"\n[admin]\nlisten = \"/run/admin/admin.sock\"\n", 0o640)
	n.o.Failpoint = func(step string) error {
		if step != "systemctl restart cri-proxy.service" {
			return nil
		}
		for _, dir := range []string{"/run/other", "/run/admin"} {
			if err := os.Mkdir(n.o.path(dir), 0o755); err != nil {
				return err
			}
		}
		return errors.New("planted")
	}
	n.failsAndIsUndone(t.Context(), "planted")
}

// TestDiff: a dry run shows every change and makes none.
func TestDiff(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.tree()
	shown := n.plan().Diff()
	for _, part := range []string{
		"--- /dev/null\n+++ /etc/cri-proxy/config.toml\n", `+default_handler = "runc"`,
		"--- /var/lib/kubelet/config.yaml\n+++ /var/lib/kubelet/config.yaml\n",
		"-containerRuntimeEndpoint: \"unix:///run/containerd/containerd.sock\"  # the node's\n+containerRuntimeEndpoint: \"unix:///run/cri-proxy/cri-proxy.sock\"  # the node's\n",
		"run: systemctl daemon-reload\nrun: systemctl enable cri-proxy.socket cri-proxy.service\nrun: systemctl restart cri-proxy.service\nrun: systemctl restart kubelet.service\n",
	} {
		if !strings.Contains(shown, part) {
			t.Errorf("the diff has no\n%s\nbut is\n%s", part, shown)
		}
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("a dry run changed the node (-before +after):\n%s", diff)
	}
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown, err := UninstallDiff(t.Context(), n.o)
	if err != nil || !strings.Contains(shown, "+containerRuntimeEndpoint: \"unix:///run/containerd/containerd.sock\"  # the node's\n") ||
		!strings.Contains(shown, "--- /etc/cri-proxy/config.toml\n+++ /dev/null\n") || !strings.Contains(shown, "run: systemctl disable") {
		t.Errorf("uninstall shows, with the error %v,\n%s", err, shown)
	}
}

// TestUnitsOfAPackage are used as they are, where they are right.
func TestUnitsOfAPackage(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("/usr/lib/systemd/system/cri-proxy.service", string(configs.ServiceUnit()), 0o644)
	n.write("/usr/lib/systemd/system/cri-proxy.socket", strings.ReplaceAll(string(configs.SocketUnit()), "0660", "0600"), 0o644)
	before := n.tree()
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := n.tree()
	if _, ok := after["/etc/systemd/system/cri-proxy.service"]; ok {
		t.Error("the unit was written although the package has the same")
	}
	if _, ok := after["/etc/systemd/system/cri-proxy.socket"]; !ok {
		t.Error("the package's socket does not fit the configuration, and no unit overrules it")
	}
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("the node before and after (-before +after):\n%s", diff)
	}
}

// TestEnabledBefore: units that were enabled by somebody else stay so.
func TestEnabledBefore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.set("enabled", "0")
	if err := n.plan().Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := Uninstall(t.Context(), n.o); err != nil {
		t.Fatal(err)
	}
	for _, command := range n.asked() {
		if strings.HasPrefix(command, "disable") || strings.HasPrefix(command, "stop") {
			t.Errorf("systemctl %s", command)
		}
	}
}
