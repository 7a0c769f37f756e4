package install

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What a kubeadm node has, with what a careless edit would lose.
const (
	kubeletConfig = `# Written by kubeadm, and by us.
apiVersion: kubelet.config.k8s.io/v1beta1
cgroupDriver: systemd
containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock"  # the node's
kind: KubeletConfiguration
evictionHard: {memory.available: "100Mi"}
`
	instanceConfig = "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n"
	kubeadmFlags   = `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip=10.0.0.1"` + "\n"
)

// testNode is a node below a directory, with a systemctl that does nothing but
// write down what it was asked for.
type testNode struct {
	*testing.T
	o                 Options
	bin               string // Where systemctl is.
	containerd, proxy *fakeruntime.Runtime
	out               strings.Builder
}

func newNode(t *testing.T) *testNode {
	t.Helper()
	n := &testNode{T: t, bin: t.TempDir()}
	root, err := os.MkdirTemp("", "in") // Short, for the sockets in it.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	n.o = Options{
		Config: "/etc/cri-proxy/config.toml", Binary: "/usr/bin/cri-proxy", Root: root, Systemctl: filepath.Join(n.bin, "systemctl"),
		Out: &n.out, Patience: 20 * time.Second,
	}
	n.write("/var/lib/kubelet/config.yaml", kubeletConfig, 0o600)
	n.write("/var/lib/kubelet/instance-config.yaml", instanceConfig, 0o644)
	n.write("/var/lib/kubelet/kubeadm-flags.env", kubeadmFlags, 0o644)
	n.write("/etc/systemd/system/other.service", "", 0o644)
	n.script()
	n.containerd = n.runtime("/run/containerd/containerd.sock", fakeruntime.Options{
		Name: "containerd", Runtimes: []string{"runc", "runsc"},
		Info: map[string]string{"config": `{"containerd": {"defaultRuntimeName": "runc", "runtimes": {"runc": {}, "runsc": {}, "kata": {}}}}`},
	})
	n.proxy = n.runtime("/run/cri-proxy/cri-proxy.sock", fakeruntime.Options{Name: "proxy"})
	n.serveMetrics()
	return n
}

// script writes a systemctl that fails where its arguments begin as the file "fails" says.
func (n *testNode) script() {
	n.Helper()
	text := fmt.Sprintf(`#!/bin/sh
cd %s
case "$1" in
is-enabled) exit $(cat enabled 2>/dev/null || echo 1);;
is-active) exit $(cat active 2>/dev/null || echo 0);;
esac
echo "$*" >> log
if [ -e fails ]; then case "$*" in $(cat fails)*) echo "it is planned to fail" >&2; exit 5;; esac; fi
`, n.bin)
	if err := os.WriteFile(n.o.Systemctl, []byte(text), 0o700); err != nil {
		n.Fatal(err)
	}
}

func (n *testNode) set(name, text string) {
	n.Helper()
	if err := os.WriteFile(filepath.Join(n.bin, name), []byte(text), 0o600); err != nil {
		n.Fatal(err)
	}
}

// asked returns the commands that systemctl was given.
func (n *testNode) asked() []string {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(n.bin, "log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (n *testNode) write(file, text string, mode os.FileMode) {
	n.Helper()
	path := n.o.path(file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		n.Fatal(err)
	}
}

func (n *testNode) read(file string) string {
	n.Helper()
	text, err := os.ReadFile(n.o.path(file))
	if err != nil {
		n.Fatal(err)
	}
	return string(text)
}

func (n *testNode) runtime(socket string, o fakeruntime.Options) *fakeruntime.Runtime {
	n.Helper()
	o.Socket = n.o.path(socket)
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o755); err != nil {
		n.Fatal(err)
	}
	return fakeruntime.Start(n.T, o)
}

// serveMetrics counts a list of the kubelet's at each scrape, once the kubelet was
// started with the proxy's endpoint.
func (n *testNode) serveMetrics() {
	n.Helper()
	listener, err := (&net.ListenConfig{}).Listen(n.Context(), "unix", n.o.path("/run/cri-proxy/admin.sock"))
	if err != nil {
		n.Fatal(err)
	}
	lists := 0
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked := n.asked()
		if asked[len(asked)-1] == "restart kubelet.service" && strings.Contains(n.read("/var/lib/kubelet/config.yaml"), "cri-proxy") {
			lists++
		}
		fmt.Fprintf(w, "cri_proxy_requests_total{backend=\"\",code=\"OK\",method=\"ListPodSandbox\"} %d\n", lists) //nolint:errcheck // Its reader sees it.
		fmt.Fprint(w, "cri_proxy_requests_total{backend=\"x\",code=\"OK\",method=\"Version\"} 7\n")                //nolint:errcheck // The same.
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	n.Cleanup(func() {
		if err := server.Close(); err != nil {
			n.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			n.Error(err)
		}
	})
}

// tree is every file and directory of the node but for sockets: its mode, owner
// and bytes.
func (n *testNode) tree() map[string]string {
	n.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(n.o.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSocket != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			text = n.read(strings.TrimPrefix(path, n.o.Root))
		}
		all[strings.TrimPrefix(path, n.o.Root)] = fmt.Sprintf("%s %s", info.Mode(), text)
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	return all
}

func (n *testNode) plan() *Plan {
	n.Helper()
	p, err := NewPlan(n.Context(), n.o)
	if err != nil {
		n.Fatal(err)
	}
	return p
}

func notReady() []*runtimeapi.RuntimeCondition {
	return []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Message: "planned"}}
}

func (n *testNode) remove(file string) {
	n.Helper()
	if err := os.RemoveAll(n.o.path(file)); err != nil {
		n.Fatal(err)
	}
}

func reversed(all []string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, s := range slices.Backward(all) {
			if !yield(s) {
				return
			}
		}
	}
}
