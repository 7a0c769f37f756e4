package critest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// segmentSize is that of the shared memory that critest makes on the host, and
// leaves there.
const segmentSize = "1048576"

// segments are the ids of the machine's shared memory of critest's size that no
// process uses.
func segments() (map[string]bool, error) {
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		// key shmid perms size cpid lpid nattch …
		if fields := strings.Fields(line); len(fields) > 6 && fields[3] == segmentSize && fields[6] == "0" {
			found[fields[1]] = true
		}
	}
	return found, nil
}

// removeSegments removes those that were not there before. A cancelled ctx does
// not keep it from that.
func removeSegments(ctx context.Context, before map[string]bool) error {
	now, err := segments()
	problems := []error{err}
	for id := range now {
		if before[id] {
			continue
		}
		output, err := exec.CommandContext(context.WithoutCancel(ctx), "ipcrm", "--shmem-id", id).CombinedOutput()
		if err != nil {
			problems = append(problems, fmt.Errorf("remove critest's shared memory: %w: %s", err, bytes.TrimSpace(output)))
		}
	}
	return errors.Join(problems...)
}
