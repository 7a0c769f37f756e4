package kind

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// hold marks the folder as that of a test that lives, as the rig does with its
// own: rig.Sweep removes it, and its cgroups, when the test was killed.
func (d *Docker) hold() (err error) {
	name := d.file("lock")
	if d.lock, err = os.Create(name + ".new"); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// settings are those of the kernel that the nodes' kubelets and systemd change,
// and that belong to no namespace.
func settings() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/pid_max",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
		"fs/protected_fifos", "fs/protected_hardlinks", "fs/protected_regular", "fs/protected_symlinks",
		"fs/inotify/max_user_instances", "fs/inotify/max_user_watches",
	}
}

func saveSettings() (map[string][]byte, error) {
	saved := map[string][]byte{}
	for _, name := range settings() {
		content, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		saved[name] = content
	}
	return saved, nil
}

func restoreSettings(saved map[string][]byte) error {
	var problems []error
	for name, content := range saved {
		path := filepath.Join("/proc/sys", name)
		now, err := os.ReadFile(path)
		if err == nil && slices.Equal(now, content) {
			continue
		}
		problems = append(problems, err, os.WriteFile(path, content, 0o644))
	}
	return errors.Join(problems...)
}

// modules is a folder that kind mounts into nodes, and that Docker makes where it
// is missing.
const modules = "/lib/modules"

func (d *Docker) removeModules() error {
	if d.modules {
		return nil
	}
	if err := os.Remove(modules); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeCgroups removes the groups of the nodes, which are empty.
func removeCgroups(ctx context.Context, name string) error {
	groups, err := cgroups(name)
	if err != nil {
		return err
	}
	var problems []error
	for _, group := range groups {
		problems = append(problems, rig.Poll(ctx, func() error { // It is busy until the kernel has buried the dead.
			if err := unix.Rmdir(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return &fs.PathError{Op: "remove cgroup", Path: group, Err: err}
			}
			return nil
		}))
	}
	return errors.Join(problems...)
}

// cgroups are the groups of that name and below, the deepest first.
func cgroups(name string) (groups []string, err error) {
	roots, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", name))
	if err != nil {
		return nil, err
	}
	for _, root := range append(roots, filepath.Join("/sys/fs/cgroup", name)) {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(groups)
	return groups, nil
}

// Leftovers is what is still on the machine: after Close there is nothing.
func (d *Docker) Leftovers() ([]string, error) {
	found, err := cgroups(filepath.Base(d.Dir))
	for _, path := range []string{d.Dir, modules} {
		if _, statErr := os.Stat(path); statErr == nil && (path != modules || !d.modules) {
			found = append(found, path)
		}
	}
	commands, globErr := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		line, readErr := os.ReadFile(path)
		if readErr == nil && strings.Contains(string(line), d.Dir+"/") {
			found = append(found, path+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found, errors.Join(err, globErr)
}
