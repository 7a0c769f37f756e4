package kind

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// What a machine may lack for kind, all in this file. On one that lacks nothing
// neither function asks for anything.

// wrapper is a runc for a machine that has not all capabilities to give away: it
// takes the one that is missing out of a bundle, or out of a process for exec.
const wrapper = `#!/bin/sh
set -eu
file=""
previous=""
for argument in "$@"; do
	case $previous in
	--bundle|-b) file=$argument/config.json ;;
	--process|-p) file=$argument ;;
	esac
	previous=$argument
done
if [ -n "$file" ]; then
	jq 'def less: if . then map_values(map(select(. != "CAP_SYS_RESOURCE"))) else . end;
		if .process then .process.capabilities |= less | del(.process.rlimits) | .process.oomScoreAdj |= ([. // 0, 0] | max)
		else .capabilities |= less | del(.rlimits) end' "$file" >"$file.new"
	cat "$file.new" >"$file"
	rm "$file.new"
fi
exec %q "$@"
`

// mayRaiseLimits says whether root has CAP_SYS_RESOURCE here, to give to a
// privileged container and to lower OOM scores with.
func mayRaiseLimits() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return bits&(1<<unix.CAP_SYS_RESOURCE) != 0, err
		}
	}
	return false, errors.New("/proc/self/status has no CapBnd")
}

// restrictedDaemon are the flags that dockerd needs on this machine.
func restrictedDaemon(dir string, parts rig.Parts) ([]string, error) {
	may, err := mayRaiseLimits()
	if may || err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "runc-wrapper")
	content := fmt.Sprintf(wrapper, filepath.Join(parts.Runc, "runc"))
	return []string{"--add-runtime", "rw=" + path, "--default-runtime", "rw"}, os.WriteFile(path, []byte(content), 0o755)
}

// restrictedPatches are further parts of a cluster's configuration: the cgroups
// of the kubelet, and the OOM scores of the nodes' containerd.
func restrictedPatches() (kubelet, containerd string, err error) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		kubelet = "failCgroupV1: false\n"
	}
	may, err := mayRaiseLimits()
	if !may {
		containerd = "[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n"
	}
	return kubelet, containerd, err
}
