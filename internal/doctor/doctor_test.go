package doctor_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestHealthyNode(t *testing.T) {
	t.Parallel()
	if short, long := plant(t).wrong(); len(short) > 0 {
		t.Errorf("nothing is wrong with this node, but:\n%s", long)
	}
}

// fault is something wrong with a node and everything that is to be said of it.
type fault struct {
	name  string
	plant func(p *planted)
	want  []string // "verdict check about", in order.
	says  string   // In one of the reasons.
}

func faults() []fault {
	return slices.Concat(configurationFaults(), proxyFaults(), runtimeFaults(), kubeletFaults(), fileFaults(), clusterFaults())
}

func configurationFaults() []fault {
	const file = "/etc/cri-proxy/config.toml"
	return []fault{
		{
			"no configuration", func(p *planted) { p.remove(file) },
			[]string{"problem configuration " + file, "skipped node"},
			"no such file",
		},
		{
			"two mistakes in the configuration", func(p *planted) {
				p.edit(file, `backend = "sandboxed"`, `backend = "sandboxes"`)
				p.edit(file, `version = 1`, "version = 1\nverbose = true")
			},
			[]string{"problem configuration " + file, "problem configuration " + file, "skipped node"},
			"sandboxes",
		},
	}
}

func proxyFaults() []fault {
	return []fault{
		{
			"the proxy does not run", func(p *planted) { p.remove("/run/cri-proxy") },
			[]string{"problem proxy", "skipped hooks"},
			"not running",
		},
		{
			"the proxy is not ready", func(p *planted) { p.status["ready"], p.status["notReady"] = false, "backend containerd is away" },
			[]string{"problem proxy"},
			"backend containerd is away",
		},
		{
			"the proxy's CRI socket is gone", func(p *planted) { p.self.Stop() },
			[]string{"problem proxy", "skipped socket server.listen"},
			"CRI through it fails",
		},
		{
			"the running proxy is another version", func(p *planted) { p.status["version"] = "v0" },
			[]string{"warning proxy"},
			"version v0",
		},
		{
			"the state file was set aside", func(p *planted) { p.status["stateSetAside"] = "/var/lib/cri-proxy/state.db.corrupt-1" },
			[]string{"warning proxy"},
			"state.db.corrupt-1",
		},
		{
			"the running proxy gives a backend no pods", func(p *planted) {
				p.status["backends"] = []any{map[string]any{"name": "sandboxed", "up": true, "unusable": "its cgroup driver differs"}}
			},
			[]string{"problem proxy sandboxed"},
			"its cgroup driver differs",
		},
		{
			"a hook that has waited for long", func(p *planted) {
				p.hooks["hooks"] = []any{map[string]any{"id": "a", "accepted": time.Now().Add(-2 * time.Hour)}}
			},
			[]string{"warning hooks"},
			"1 of 1 deliveries",
		},
		{
			"hooks of another version", func(p *planted) { p.hooks["unreadable"] = 3 },
			[]string{"warning hooks"},
			"3 records",
		},
	}
}

func runtimeFaults() []fault {
	configure := func(change func(*fakeruntime.Options)) func(*planted) {
		return func(p *planted) { p.second.Configure(change) }
	}
	return []fault{
		{
			"a backend is stopped", func(p *planted) { p.second.Stop() },
			[]string{"problem backend sandboxed", "skipped handler gvisor", "skipped cgroup-driver sandboxed", "skipped cni", "skipped image-filesystem sandboxed"},
			"there is no socket",
		},
		{
			"a backend that died", func(p *planted) { p.deadSocket("/run/sandboxed/containerd.sock") },
			[]string{"problem backend sandboxed", "skipped handler gvisor", "skipped cgroup-driver sandboxed", "skipped cni", "skipped image-filesystem sandboxed"},
			"nobody listens",
		},
		{
			"a backend whose network is not ready", configure(func(o *fakeruntime.Options) {
				o.Conditions = []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Message: "cni plugin not initialized"}}
			}),
			[]string{"problem backend sandboxed"},
			"cni plugin not initialized",
		},
		{
			"a backend without images", func(p *planted) {
				p.second.Inject("ImageFsInfo", fakeruntime.Fault{Err: status.Error(codes.Unimplemented, "no images here")})
			},
			[]string{"problem backend sandboxed", "skipped image-filesystem sandboxed"},
			"no images here",
		},
		{
			"a handler whose runtime the backend does not know", configure(func(o *fakeruntime.Options) {
				o.Runtimes, o.Info = []string{"kata"}, criInfo("/var/lib/sandboxed", "/etc/cni/sandboxed", "", "kata")
			}),
			[]string{"problem handler gvisor"},
			`no runtime "runsc", only kata`,
		},
		{
			"the same on a containerd 1.7", configure(func(o *fakeruntime.Options) {
				o.OldStatus, o.Info = true, criInfo("/var/lib/sandboxed", "/etc/cni/sandboxed", "", "kata")
			}),
			[]string{"problem handler gvisor"},
			`no runtime "runsc", only kata`,
		},
		{
			"a runtime that does not tell its runtimes", configure(func(o *fakeruntime.Options) { o.OldStatus, o.Info = true, nil }),
			[]string{"skipped handler gvisor", "skipped cni"},
			"does not tell its runtimes",
		},
		{
			"cgroup drivers differ", configure(func(o *fakeruntime.Options) { o.CgroupDriver = runtimeapi.CgroupDriver_CGROUPFS }),
			[]string{"problem cgroup-driver sandboxed"},
			"cgroupfs, but the default backend containerd uses systemd",
		},
		{
			"a runtime that does not tell its cgroup driver", configure(func(o *fakeruntime.Options) { o.Unimplemented = []string{"RuntimeConfig"} }),
			[]string{"skipped cgroup-driver sandboxed"},
			"does not tell",
		},
		{
			"the cgroup driver cannot be asked", func(p *planted) {
				p.second.Inject("RuntimeConfig", fakeruntime.Fault{Err: status.Error(codes.Internal, "broken")})
			},
			[]string{"problem cgroup-driver sandboxed"},
			"broken",
		},
		{
			"the kubelet's driver, where the default backend tells none, differs", func(p *planted) {
				p.standard.Configure(func(o *fakeruntime.Options) { o.Unimplemented = []string{"RuntimeConfig"} })
				p.edit("/var/lib/kubelet/config.yaml", "systemd", "cgroupfs")
			},
			[]string{"skipped cgroup-driver containerd", "problem cgroup-driver sandboxed"},
			"systemd, but /var/lib/kubelet/config.yaml uses cgroupfs",
		},
		{
			"two containerds with one root", configure(func(o *fakeruntime.Options) {
				o.Info = criInfo("/var/lib/containerd", "/etc/cni/sandboxed", "", "runsc")
			}),
			[]string{"problem cni"},
			"containerd and sandboxed have one root directory",
		},
		{
			"two containerds that write one network", configure(func(o *fakeruntime.Options) {
				o.Info = criInfo("/var/lib/sandboxed", "/etc/cni/containerd", "/etc/template", "runsc")
			}),
			[]string{"warning cni /etc/cni/containerd"},
			"sandboxed would write",
		},
		{
			"images on another filesystem", func(p *planted) {
				p.edit("/proc/self/mountinfo", "1 0 8:1", "2 1 8:2 / /var/lib/sandboxed rw - ext4 /dev/sda2 rw\n1 0 8:1")
			},
			[]string{"warning image-filesystem sandboxed"},
			"/var/lib/sandboxed is on another filesystem",
		},
		{
			"images on a filesystem that the node does not see", func(p *planted) { p.remove("/var/lib/sandboxed") },
			[]string{"problem image-filesystem sandboxed"},
			"not on this node",
		},
	}
}

// TestFaults: what is wrong with a node is found and named, and nothing else is
// said of it.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range faults() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := plant(t)
			tt.plant(p)
			short, long := p.wrong()
			if diff := cmp.Diff(tt.want, short); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%s", diff, long)
			}
			if !strings.Contains(long, tt.says) {
				t.Errorf("no finding says %q:\n%s", tt.says, long)
			}
		})
	}
}

// TestHangs: a runtime and an API server that never answer do not stop the rest.
func TestHangs(t *testing.T) {
	t.Parallel()
	p := plant(t)
	p.second.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
	p.options.Timeout = 2 * time.Second
	p.options.RuntimeClasses = func(ctx context.Context, _ *configs.Config) (map[string]string, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	short, long := p.wrong()
	want := []string{
		"problem backend sandboxed", "skipped handler gvisor", "skipped cgroup-driver sandboxed", "skipped cni",
		"warning runtime-class", "skipped image-filesystem sandboxed",
	}
	if diff := cmp.Diff(want, short); diff != "" {
		t.Errorf("findings (-want +got):\n%s\n%s", diff, long)
	}
}

// TestWithoutRoot: what only root may see is skipped, and says so. Root runs it
// as somebody else.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		rerunAsNobody(t)
		return
	}
	p := plant(t)
	for _, file := range []string{"/run/containerd/containerd.sock", "/run/cri-proxy/admin.sock", "/var/lib/kubelet", "/var/lib/cri-proxy"} {
		p.chmod(file, 0)
	}
	defer p.chmod("/var/lib/kubelet", 0o700)
	defer p.chmod("/var/lib/cri-proxy", 0o700)
	short, long := p.wrong()
	want := []string{
		"skipped proxy", "skipped hooks", "skipped backend containerd", "skipped handler runc", "skipped cgroup-driver containerd", "skipped kubelet-endpoint",
		"skipped cni", "skipped image-filesystem containerd", "skipped image-filesystem sandboxed", "skipped state /var/lib/cri-proxy",
	}
	if diff := cmp.Diff(want, short); diff != "" {
		t.Errorf("findings (-want +got):\n%s\n%s", diff, long)
	}
}

func rerunAsNobody(t *testing.T) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("LEFT OUT: this needs /proc: ", err)
	}
	dir, err := os.MkdirTemp("", "nobody") // Others may not enter the directories of go test.
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "doctor.test")
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(os.WriteFile(binary, self, 0o700), os.Chmod(binary, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	again := exec.CommandContext(t.Context(), binary, "-test.run", "^TestWithoutRoot$", "-test.v")
	again.Dir = dir
	again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutRoot") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
