package kubelet

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is the running kubelet; the zero value is none.
type process struct {
	pid  int
	args []string
}

func (p process) flag(name string) string { return flag(p.args, name) }

// findProcess looks for the kubelet in /proc. A process that ends meanwhile is not
// there.
func findProcess(root string) (process, error) {
	entries, err := os.ReadDir(filepath.Join(root, "proc"))
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, nil
	}
	for _, entry := range entries {
		pid, notANumber := strconv.Atoi(entry.Name())
		if notANumber != nil {
			continue
		}
		dir := filepath.Join(root, "proc", entry.Name())
		comm, unreadable := os.ReadFile(filepath.Join(dir, "comm"))
		if unreadable != nil || strings.TrimSpace(string(comm)) != "kubelet" {
			continue
		}
		if line, unreadable := os.ReadFile(filepath.Join(dir, "cmdline")); unreadable == nil {
			return process{pid: pid, args: strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")}, nil
		}
	}
	return process{}, err
}
