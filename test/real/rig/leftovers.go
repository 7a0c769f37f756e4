package rig

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Leftovers is what the rig has on the machine: processes by their command line
// and cgroup, mounts, bridges, cgroups, CNI's memory, links to logs and its
// folder. After Close there is nothing.
func (r *Rig) Leftovers() ([]string, error) {
	mounts, mountsErr := mountsBelow(r.Dir)
	processes, processesErr := r.mentioned()
	links, linksErr := r.logLinks()
	bridges, bridgesErr := r.bridges()
	found := append(append(append(mounts, processes...), links...), bridges...)
	problems := []error{mountsErr, processesErr, linksErr, bridgesErr}
	for _, pattern := range []string{
		filepath.Join("/sys/fs/cgroup", r.CgroupParent()), filepath.Join("/sys/fs/cgroup/*", r.CgroupParent()),
		"/var/lib/cni/results/" + prefix + r.id() + "[a-z]-*", r.Dir,
	} {
		paths, err := filepath.Glob(pattern)
		found, problems = append(found, paths...), append(problems, err)
	}
	return found, errors.Join(problems...)
}

func (r *Rig) bridges() (found []string, err error) {
	links, err := net.Interfaces()
	for _, link := range links {
		if strings.TrimRight(link.Name, "abcdefgh") == prefix+r.id() {
			found = append(found, "bridge "+link.Name)
		}
	}
	return found, err
}

// mentioned are the processes that name the rig's folder in their command line
// or that live in its cgroups.
func (r *Rig) mentioned() (found []string, err error) {
	for file, name := range map[string]string{"cmdline": r.Dir, "cgroup": r.CgroupParent()} {
		paths, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			text := strings.ReplaceAll(string(content), "\x00", " ")
			// A group that is gone holds only the dead that init has not buried yet.
			if err == nil && strings.Contains(text, name) && !strings.HasSuffix(text, "(deleted)\n") {
				found = append(found, "process "+path+": "+text)
			}
		}
	}
	return found, nil
}
