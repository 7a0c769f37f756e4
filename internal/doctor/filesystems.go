package doctor

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// checkImageFilesystems: the kubelet collects images, and evicts pods, by the first
// image filesystem alone, which is the default backend's.
func (n *node) checkImageFilesystems() {
	mounts := readMounts(n.path("/proc/self/mountinfo"))
	first := ""
	for i, r := range n.backends {
		c := n.about("image-filesystem", r.name)
		if r.err != nil || r.imageErr != nil {
			c.skip("backend %s cannot be asked", r.name)
			continue
		}
		if len(r.images) == 0 {
			c.warn("nothing, unless it stays so", "the runtime names none yet; the kubelet needs the default backend's")
			continue
		}
		dir := r.images[0].GetFsId().GetMountpoint()
		if _, err := os.Stat(n.path(dir)); errors.Is(err, fs.ErrNotExist) {
			c.problem("mount it where the kubelet sees it", "its mountpoint %s is not on this node, and a kubelet stops collecting images over that", dir)
			continue
		}
		device := mounts.deviceOf(dir)
		switch {
		case i == 0:
			first = device
			c.ok("%s: the one that the kubelet watches", dir)
		case device == "" || first == "":
			c.skip("which filesystem %s is on cannot be told", dir)
		case device != first:
			c.warn("watch its free space otherwise, or put both on one filesystem",
				"%s is on another filesystem than backend %s's images: the kubelet neither collects images nor evicts pods when it is full", dir, n.backends[0].name)
		default:
			c.ok("%s: on the filesystem that the kubelet watches", dir)
		}
	}
}

type mount struct{ point, device string }

type mounts []mount

// readMounts reads mountinfo; of two on one point the later one is on top.
func readMounts(file string) (all mounts) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			all = append(all, mount{point: fields[4], device: fields[2]})
		}
	}
	slices.Reverse(all)
	return all
}

// deviceOf is the device below a path; "" if it is not known.
func (all mounts) deviceOf(path string) string {
	best := mount{}
	for _, m := range all {
		below := m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/")
		if below && len(m.point) > len(best.point) {
			best = m
		}
	}
	return best.device
}
