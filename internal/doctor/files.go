package doctor

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cri-proxy/cri-proxy/configs"
)

// What the state directory's filesystem has to have free: every change of a hook
// is written there before it takes effect.
const (
	fullBytes = 10 << 20
	lowBytes  = 200 << 20
	lowPart   = 20 // 1/20 of the whole.
)

func (n *node) checkSockets() {
	n.checkSocket("server.listen", n.cfg.Server.Listen, os.FileMode(n.cfg.Server.SocketMode), n.proxy.running)
	n.checkSocket("admin.listen", n.cfg.Admin.Listen, 0o600, n.proxy.running)
	for _, r := range n.backends {
		n.checkSocket("backends."+r.name+".endpoint", r.cfg.Endpoint, 0o660, r.err == nil)
	}
	if strings.HasSuffix(n.cfg.Server.Listen, "run/crio/crio.sock") {
		n.about("socket", "server.listen").problem("name it otherwise", "the kubelet takes any runtime on a path that ends run/crio/crio.sock for CRI-O")
	}
}

// checkSocket judges what an endpoint leads to. Whoever can connect can run
// anything as root.
func (n *node) checkSocket(key, endpoint string, most os.FileMode, served bool) {
	file, err := configs.SocketPath(endpoint)
	if err != nil || !served {
		return // That nobody serves it is the finding of another check.
	}
	c := n.about("socket", key)
	info, err := os.Stat(n.path(file))
	if err != nil {
		c.skip("%v", err)
		return
	}
	mode := info.Mode().Perm()
	switch {
	case mode&^most&0o002 != 0:
		c.problem("chmod o= "+file+", and see what gave it that mode", "everybody on the node can run anything as root through %s (mode %04o)", file, mode)
	case mode&^most != 0:
		c.warn("chmod "+octal(most)+" "+file, "%s has the mode %04o, and %04o is enough", file, mode, most)
	case !n.ownedAsRoot(info):
		c.warn("chown root "+file, "%s does not belong to root", file)
	default:
		c.ok("%s, mode %04o", file, mode)
	}
}

func octal(mode os.FileMode) string {
	text, err := configs.FileMode(mode).MarshalText()
	if err != nil {
		return ""
	}
	return string(text)
}

// ownedAsRoot compares with the owner of the whole tree, which is root's for /.
func (n *node) ownedAsRoot(info os.FileInfo) bool {
	root, err := os.Stat(n.path("/"))
	if err != nil {
		return true
	}
	a, aok := info.Sys().(*syscall.Stat_t)
	b, bok := root.Sys().(*syscall.Stat_t)
	return !aok || !bok || a.Uid == b.Uid
}

func (n *node) checkState() {
	dir := n.cfg.State.Dir
	c := n.about("state", dir)
	entries, err := os.ReadDir(n.path(dir))
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.skip("%v: run this as root", err)
		return
	case errors.Is(err, fs.ErrNotExist) && n.proxy.running:
		c.problem("restart the proxy: what it writes now is lost with the process", "the running proxy's state directory is gone")
		return
	case errors.Is(err, fs.ErrNotExist):
		c.skip("the proxy makes it when it first starts")
		return
	case err != nil:
		c.problem("make it a directory", "%v", err)
		return
	}
	if info, err := os.Stat(n.path(dir)); err == nil && info.Mode().Perm()&0o022 != 0 {
		c.warn("chmod go-w "+dir, "others than root can write to it (mode %04o)", info.Mode().Perm())
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".corrupt-") {
			c.warn("keep it if you want to know why, else delete it", "%s is a damaged state file that was set aside", e.Name())
		}
	}
	n.checkDisk(c)
}

func (n *node) checkDisk(c check) {
	free, total, err := n.DiskFree(n.path(n.cfg.State.Dir))
	switch {
	case err != nil:
		c.skip("its free space: %v", err)
	case free < fullBytes:
		c.problem("make room: calls that need a hook fail while it is full", "%d MiB are free", free>>20)
	case free < lowBytes && free < total/lowPart:
		c.warn("make room: calls that need a hook fail once it is full", "only %d MiB of %d MiB are free", free>>20, total>>20)
	default:
		c.ok("%d MiB are free", free>>20)
	}
}

// checkFiles looks at the files that the configuration names.
func (n *node) checkFiles() {
	n.checkFile("kubernetes.kubeconfig", n.cfg.Kubernetes.Kubeconfig, true)
	n.checkFile("service_env.services_file", n.cfg.ServiceEnv.ServicesFile, false)
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Handlers)) {
		images := n.cfg.Handlers[name].Images
		key := "handlers." + name + ".images."
		for _, file := range images.AuthFiles {
			n.checkFile(key+"auth_files", file, true)
		}
		n.checkFile(key+"credential_providers", images.CredentialProviders, false)
		n.checkFile(key+"credential_provider_bin_dir", images.CredentialProviderBinDir, false)
	}
}

func (n *node) checkFile(key, file string, secret bool) {
	if file == "" {
		return
	}
	c := n.about("file", key)
	info, err := os.Stat(n.path(file))
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.skip("%v: run this as root", err)
	case err != nil:
		c.problem("put it there, or correct the key", "%v", err)
	case secret && info.Mode().Perm()&0o004 != 0:
		c.warn("chmod o= "+file, "everybody on the node can read the secrets in %s (mode %04o)", file, info.Mode().Perm())
	default:
		c.ok("%s", file)
	}
}

// checkUnit: a kubelet that starts at boot without the proxy finds no runtime.
func (n *node) checkUnit() {
	c := n.about("unit", "cri-proxy.service")
	var found string
	for _, dir := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := os.Stat(n.path(filepath.Join(dir, "cri-proxy.service"))); err == nil && found == "" {
			found = filepath.Join(dir, "cri-proxy.service")
		}
	}
	if found == "" {
		c.skip("there is no such unit: something else has to start cri-proxy before the kubelet")
		return
	}
	wants, err := filepath.Glob(n.path("/etc/systemd/system/*.wants/cri-proxy.s*"))
	if err == nil && len(wants) == 0 {
		c.problem("systemctl enable cri-proxy.socket cri-proxy.service", "%s is not enabled: after a reboot the kubelet finds no runtime", found)
		return
	}
	c.ok("%s is enabled", found)
}
