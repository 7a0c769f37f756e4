package kind_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// TestComplaints: kind.sh says what is wrong and what to do, and fails. Its
// docker and kind are scripts.
func TestComplaints(t *testing.T) {
	t.Parallel()
	const docker, kind = "exit 0", `case "$1" in version) echo 0.33.0 ;; esac`
	for name, test := range map[string]struct{ docker, kind, want string }{
		"no docker": {"", kind, "docker is not installed"},
		"no answer from docker": {
			"echo Cannot connect to the Docker daemon >&2; exit 1", kind, "no answer from Docker at unix:///nowhere.sock: start it",
		},
		"no kind":  {docker, "", "leave KIND out, and make builds it"},
		"old kind": {docker, "echo 0.27.0", "kind is v0.27.0, older than v0.30.0: leave KIND out"},
		"taken name": {
			docker, `case "$1" in version) echo 0.33.0 ;; get) echo mine ;; esac`, "end it (make kind-down CLUSTER=mine), or make another one",
		},
		"no base image": {
			`case "$1" in build) echo pull access denied >&2; exit 1 ;; esac`, kind, "name a base image that Docker has: make kind-up BASE=…",
		},
		"taken port": {
			docker, `case "$1" in version) echo 0.33.0 ;; create) echo "Bind for 0.0.0.0:80 failed: port is already allocated"; exit 1 ;; esac`,
			"is taken on this machine: end what listens there",
		},
		"kind fails": {
			docker, `case "$1" in version) echo 0.33.0 ;; create) echo no space left on device; exit 1 ;; esac`, "no space left on device",
		},
		"node not ready": {
			`case "$*" in *"kubectl"*wait*) exit 1 ;; esac`, kind, "docker exec mine-worker journalctl --unit cri-proxy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, code := up(t, test.docker, test.kind)
			if code != 1 {
				t.Errorf("kind.sh up ends with exit code %d, want 1", code)
			}
			wantContains(t, said, test.want)
		})
	}
}

// up runs "kind.sh up" with these scripts; one that is "" is missing.
func up(t *testing.T, docker, kind string) (said string, code int) {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, name := range []string{"bash", "cat", "cp", "dirname", "grep", "head", "install", "mktemp", "rm", "sort", "tail", "tee"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{"docker": docker, "kind": kind, "cri-proxy": "exit 0"} {
		if script == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!"+folder+"/bash\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "bash"), filepath.Join(root, "configs", "kind", "kind.sh"), "up")
	cmd.Env = []string{
		"PATH=" + folder, "TMPDIR=" + t.TempDir(), "DOCKER_HOST=unix:///nowhere.sock",
		"PROXY=" + filepath.Join(folder, "cri-proxy"), "KIND=kind", "CLUSTER=mine",
	}
	output, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(output), cmd.ProcessState.ExitCode()
}
