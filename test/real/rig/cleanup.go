package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// endContainers kills the first process, and so all, of every container that
// the state folder of a containerd knows. The container's id in the process's
// cgroup proves that the number was not given to somebody else.
func endContainers(ctx context.Context, state string) error {
	files, err := filepath.Glob(filepath.Join(state, "io.containerd.runtime.v2.task", "*", "*", "init.pid"))
	if err != nil {
		return err
	}
	var problems []error
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // The container ended meanwhile.
		}
		cgroup, err := os.ReadFile(filepath.Join("/proc", string(content), "cgroup"))
		if err != nil || !bytes.Contains(cgroup, []byte(filepath.Base(filepath.Dir(file)))) {
			continue
		}
		pids, err := parsePids(string(content))
		problems = append(problems, err, killAll(ctx, pids))
	}
	return errors.Join(problems...)
}

// endShims kills the shims that serve the containerd behind the socket, the one
// that their command line names.
func endShims(ctx context.Context, socket string) error {
	pids, err := processes(func(arguments []string) bool {
		at := slices.Index(arguments, "-address")
		return at >= 0 && at+1 < len(arguments) && arguments[at+1] == socket
	})
	if err != nil {
		return err
	}
	return killAll(ctx, pids)
}

// processes are the ids of those whose command line is wanted.
func processes(wanted func(arguments []string) bool) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !wanted(strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")) {
			continue // It ended meanwhile, or is somebody else's.
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// killAll kills the processes and waits for their end. The burial of those that
// have no parent left is init's business.
func killAll(ctx context.Context, pids []int) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	var problems []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			problems = append(problems, fmt.Errorf("kill %d: %w", pid, err))
			continue
		}
		problems = append(problems, Poll(ctx, func() error { return ended(pid) }))
	}
	return errors.Join(problems...)
}

// ended says that a process still lives. What has ended has no threads and
// shows no command line, though its entry may stay.
func ended(pid int) error {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil //nolint:nilerr // There is no such process.
	}
	state := strings.TrimSpace(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
		return nil
	}
	return fmt.Errorf("process %d still lives", pid)
}

// mountsBelow are the mount points in the folder, the deepest first.
func mountsBelow(folder string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], folder+"/") {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points) // A mount stands behind the one that it lies on.
	return points, nil
}

func unmountBelow(folder string) error {
	points, err := mountsBelow(folder)
	if err != nil {
		return err
	}
	var problems []error
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			problems = append(problems, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(problems...)
}

// cgroups are the rig's own groups in every hierarchy, the deepest first.
func (r *Rig) cgroups() ([]string, error) {
	roots, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", r.CgroupParent()))
	if err != nil {
		return nil, err
	}
	var groups []string
	for _, root := range append(roots, filepath.Join("/sys/fs/cgroup", r.CgroupParent())) {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil // A group that vanishes while we look is what we want.
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(groups)
	return groups, nil
}

// removeCgroups kills what still lives in the rig's groups and removes them.
func (r *Rig) removeCgroups(ctx context.Context) error {
	groups, err := r.cgroups()
	if err != nil {
		return err
	}
	var problems []error
	for _, group := range groups {
		problems = append(problems, removeCgroup(ctx, group))
	}
	return errors.Join(problems...)
}

func removeCgroup(ctx context.Context, group string) error {
	listed, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pids, err := parsePids(string(listed))
	if err != nil {
		return err
	}
	if err := killAll(ctx, pids); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	return Poll(ctx, func() error { // It is busy until the kernel has buried the dead.
		if err := unix.Rmdir(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove cgroup %s: %w", group, err)
		}
		return nil
	})
}

func parsePids(text string) ([]int, error) {
	var pids []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// removeLink removes a network interface if it is there.
func removeLink(ctx context.Context, name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil //nolint:nilerr // There is no such interface.
	}
	if output, err := exec.CommandContext(ctx, "ip", "link", "delete", name).CombinedOutput(); err != nil {
		return fmt.Errorf("ip link delete %s: %w: %s", name, err, bytes.TrimSpace(output))
	}
	return nil
}
