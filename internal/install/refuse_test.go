package install

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestUninstallRefuses what would lose something, unless it is forced.
func TestUninstallRefuses(t *testing.T) {
	t.Parallel()
	const second = "\n[backends.second]\nendpoint = \"/run/second.sock\"\n[handlers.second]\nbackend = \"second\"\n"
	tests := []struct {
		name   string
		change func(n *testNode)
		why    string
	}{
		{"the kubelet's configuration was changed", func(n *testNode) {
			n.write("/var/lib/kubelet/config.yaml", n.read("/var/lib/kubelet/config.yaml")+"maxPods: 20\n", 0o600)
		}, "changed since they were written: /var/lib/kubelet/config.yaml"},
		{"a unit was changed", func(n *testNode) { n.write("/etc/systemd/system/cri-proxy.service", "[Service]\n", 0o644) }, "cri-proxy.service"},
		{"the runtime is away", func(n *testNode) { n.containerd.Stop() }, "does not answer"},
		{"another backend has pods", func(n *testNode) {
			n.write("/etc/cri-proxy/config.toml", n.read("/etc/cri-proxy/config.toml")+second, 0o644)
			n.runtime("/run/second.sock", fakeruntime.Options{}).AddSandbox(fakeruntime.Sandbox{})
		}, "backend second has 1 pods"},
		{"another backend cannot tell", func(n *testNode) {
			n.write("/etc/cri-proxy/config.toml", n.read("/etc/cri-proxy/config.toml")+second, 0o644)
		}, "backend second has pods, which the kubelet would lose, cannot be told"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			if err := n.plan().Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			tt.change(n)
			before := n.tree()
			if err := Uninstall(t.Context(), n.o); err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("got the error %v", err)
			}
			if _, err := UninstallDiff(t.Context(), n.o); err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("a dry run has the error %v", err)
			}
			if diff := cmp.Diff(before, n.tree()); diff != "" {
				t.Errorf("a refusal changed the node (-before +after):\n%s", diff)
			}
			n.o.Force = true
			if err := Uninstall(t.Context(), n.o); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(kubeletConfig, n.read("/var/lib/kubelet/config.yaml")); diff != "" {
				t.Errorf("the kubelet's configuration (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanRefuses a node on which it cannot work, and changes nothing.
func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(n *testNode)
		why    string
	}{
		{"no kubelet", func(n *testNode) { n.remove("/var/lib/kubelet") }, "no kubelet runs here"},
		{"no runtime", func(n *testNode) { n.containerd.Stop() }, "from which the configuration is made"},
		{"a configuration with a mistake", func(n *testNode) { n.write("/etc/cri-proxy/config.toml", "version = 2\n", 0o600) }, "none is overwritten"},
		{"a configuration without the kubelet's runtime", func(n *testNode) {
			n.write("/etc/cri-proxy/config.toml", strings.ReplaceAll(madeConfig, "/run/containerd/", "/run/other/"), 0o600)
		}, "its pods would be lost"},
		{"a kubelet on the proxy", func(n *testNode) {
			for _, file := range []string{"config.yaml", "kubeadm-flags.env"} {
				file = "/var/lib/kubelet/" + file
				n.write(file, strings.ReplaceAll(n.read(file), "/run/containerd/containerd.sock", "/run/cri-proxy/cri-proxy.sock"), 0o600)
			}
		}, "installed already"},
		{"a flag in the kubelet's unit", func(n *testNode) {
			n.remove("/var/lib/kubelet/kubeadm-flags.env")
			n.write("/proc/7/comm", "kubelet\n", 0o600)
			n.write("/proc/7/cmdline", "kubelet\x00--container-runtime-endpoint=unix:///run/containerd/containerd.sock\x00", 0o600)
		}, "take it out of the kubelet's unit"},
		{"a kubelet's configuration that cannot be edited", func(n *testNode) {
			n.write("/var/lib/kubelet/config.yaml", "a: &e unix:///run/containerd/containerd.sock\ncontainerRuntimeEndpoint: *e\n", 0o600)
		}, "change it by hand"},
		{"no systemctl", func(n *testNode) { n.o.Systemctl = "/nowhere/systemctl" }, "/nowhere/systemctl"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			tt.change(n)
			before := n.tree()
			if _, err := NewPlan(t.Context(), n.o); err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("got the error %v", err)
			}
			if diff := cmp.Diff(before, n.tree()); diff != "" {
				t.Errorf("a refusal changed the node (-before +after):\n%s", diff)
			}
		})
	}
}
