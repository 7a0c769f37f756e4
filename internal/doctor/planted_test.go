package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/doctor"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const healthyConfig = `version = 1
default_handler = "runc"
[kubernetes]
kubeconfig = "/etc/cri-proxy/kubeconfig"
[backends.containerd]
endpoint = "/run/containerd/containerd.sock"
[backends.sandboxed]
endpoint = "/run/sandboxed/containerd.sock"
[handlers.runc]
backend = "containerd"
[handlers.gvisor]
backend = "sandboxed"
runtime = "runsc"
[handlers.gvisor.images]
auth_files = ["/etc/cri-proxy/auth.json"]
`

// healthySockets is what ss prints of a node with a kubelet, the proxy and two containerds.
const healthySockets = `u_str ESTAB 0 0 /run/containerd/containerd.sock 100 * 101 users:(("containerd",pid=1,fd=2))
u_str ESTAB 0 0 * 101 * 100 users:(("cri-proxy",pid=2,fd=2))
u_str ESTAB 0 0 /run/containerd/containerd.sock 102 * 103 users:(("containerd",pid=1,fd=3))
u_str ESTAB 0 0 * 103 * 102 users:(("kubelet",pid=12,fd=2))
u_str LISTEN 0 0 /run/containerd/containerd.sock 104 * 0 users:(("containerd",pid=1,fd=1))
u_str ESTAB 0 0 /run/cri-proxy/cri-proxy.sock 105 * 106 users:(("cri-proxy",pid=2,fd=4))
u_str ESTAB 0 0 * 106 * 105 users:(("crictl",pid=13,fd=2))
`

// planted is a whole node below a directory.
type planted struct {
	*testing.T
	options                doctor.Options
	standard, second, self *fakeruntime.Runtime
	status, hooks          map[string]any
	classes                map[string]string
	classErr               error
	sockets                string
	socketErr              error
	free, total            uint64
}

// plant makes a node on which nothing is wrong.
func plant(t *testing.T) *planted {
	t.Helper()
	root, err := os.MkdirTemp("", "dr") // Short, for the sockets in it.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	p := &planted{T: t, sockets: healthySockets, free: 50 << 30, total: 100 << 30, classes: map[string]string{"runc": "runc", "sandbox": "gvisor"}}
	p.status = map[string]any{"version": "v1", "ready": true, "backends": []any{}}
	p.hooks = map[string]any{"hooks": []any{map[string]any{"id": "a", "accepted": time.Now()}}, "unreadable": 0}
	p.options = doctor.Options{
		Config: "/etc/cri-proxy/config.toml", Root: root, Version: "v1",
		RuntimeClasses: func(context.Context, *configs.Config) (map[string]string, error) { return p.classes, p.classErr },
		Sockets:        func(context.Context) (string, error) { return p.sockets, p.socketErr },
		DiskFree:       func(string) (free, total uint64, err error) { return p.free, p.total, nil },
	}
	p.plantFiles()
	p.standard = p.runtime("/run/containerd/containerd.sock", "containerd", "runc")
	p.second = p.runtime("/run/sandboxed/containerd.sock", "sandboxed", "runsc")
	p.self = p.runtime("/run/cri-proxy/cri-proxy.sock", "containerd")
	p.serveAdmin()
	return p
}

func (p *planted) plantFiles() {
	p.write("/etc/cri-proxy/config.toml", healthyConfig)
	p.write("/etc/cri-proxy/auth.json", "{}")
	p.write("/etc/cri-proxy/kubeconfig", "")
	p.write("/etc/crictl.yaml", "runtime-endpoint: unix:///run/cri-proxy/cri-proxy.sock\n")
	p.write("/var/lib/cri-proxy/state.db", "")
	p.write("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/cri-proxy/cri-proxy.sock\n")
	p.write("/var/lib/kubelet/instance-config.yaml", "containerRuntimeEndpoint: unix:///run/cri-proxy/cri-proxy.sock\n")
	p.write("/var/lib/kubelet/kubeadm-flags.env", `KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.1"`+"\n")
	p.write("/proc/12/comm", "kubelet\n")
	p.write("/proc/12/cmdline", "/usr/bin/kubelet\x00--config=/var/lib/kubelet/config.yaml\x00--node-ip=10.0.0.1\x00")
	p.write("/proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
	p.write("/usr/lib/systemd/system/cri-proxy.service", "")
	p.write("/etc/systemd/system/multi-user.target.wants/cri-proxy.service", "")
	p.write("/var/lib/containerd/x", "")
	p.write("/var/lib/sandboxed/x", "")
}

func (p *planted) path(file string) string { return filepath.Join(p.options.Root, file) }

func (p *planted) write(file, text string) {
	p.Helper()
	if err := os.MkdirAll(filepath.Dir(p.path(file)), 0o700); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(p.path(file), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// edit replaces a part of a file, which has to be there.
func (p *planted) edit(file, old, replacement string) {
	p.Helper()
	text, err := os.ReadFile(p.path(file))
	if err != nil {
		p.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		p.Fatalf("%s has no %q", file, old)
	}
	p.write(file, strings.ReplaceAll(string(text), old, replacement))
}

func (p *planted) remove(file string) {
	p.Helper()
	if err := os.RemoveAll(p.path(file)); err != nil {
		p.Fatal(err)
	}
}

func (p *planted) chmod(file string, mode os.FileMode) {
	p.Helper()
	if err := os.Chmod(p.path(file), mode); err != nil {
		p.Fatal(err)
	}
}

func (p *planted) runtime(socket, name string, runtimes ...string) *fakeruntime.Runtime {
	p.Helper()
	if err := os.MkdirAll(filepath.Dir(p.path(socket)), 0o700); err != nil {
		p.Fatal(err)
	}
	r := fakeruntime.Start(p.T, fakeruntime.Options{
		Name: name, Socket: p.path(socket), Runtimes: runtimes, Info: criInfo("/var/lib/"+name, "/etc/cni/"+name, "", runtimes...),
	})
	p.chmod(socket, 0o660)
	return r
}

// criInfo is what containerd's Status tells of its configuration.
func criInfo(root, cni, template string, runtimes ...string) map[string]string {
	known := map[string]any{}
	for _, name := range runtimes {
		known[name] = map[string]any{"runtimeType": "io.containerd.runc.v2"}
	}
	text, err := json.Marshal(map[string]any{
		"containerdRootDir": root, "containerd": map[string]any{"runtimes": known},
		"cni": map[string]any{"confDir": cni, "confTemplate": template},
	})
	if err != nil {
		panic(err)
	}
	return map[string]string{"config": string(text)}
}

// serveAdmin answers as the proxy's admin socket does.
func (p *planted) serveAdmin() {
	p.Helper()
	const socket = "/run/cri-proxy/admin.sock"
	listener, err := (&net.ListenConfig{}).Listen(p.Context(), "unix", p.path(socket))
	if err != nil {
		p.Fatal(err)
	}
	p.chmod(socket, 0o600)
	mux := http.NewServeMux()
	answer := func(pattern string, body *map[string]any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(*body); err != nil {
				p.Error(err)
			}
		})
	}
	answer("GET /v1/status", &p.status)
	answer("GET /v1/hooks", &p.hooks)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	p.Cleanup(func() {
		if err := server.Close(); err != nil {
			p.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			p.Error(err)
		}
	})
}

// wrong are the findings that are not ok, as "verdict check about".
func (p *planted) wrong() (short []string, long string) {
	p.Helper()
	var all strings.Builder
	for _, f := range doctor.Examine(p.Context(), p.options) {
		if f.Reason == "" || (f.Next == "") != (f.Verdict == doctor.OK || f.Verdict == doctor.Skipped) {
			p.Errorf("%+v: a finding has a reason, and what is wrong has a next step", f)
		}
		if f.Verdict != doctor.OK {
			short = append(short, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Verdict, f.Check, f.Subject)))
			fmt.Fprintf(&all, "%+v\n", f)
		}
	}
	return short, all.String()
}

// deadSocket replaces a socket by one that its process left behind.
func (p *planted) deadSocket(file string) {
	p.Helper()
	p.second.Stop()
	address := &net.UnixAddr{Name: p.path(file), Net: "unix"}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		p.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		p.Fatal(err)
	}
}
