package nfpm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

const repository = "../../.."

// manager is a program that installs packages, and how it is asked to.
type manager struct {
	name, program, format          string
	install, verify, remove, purge []string
	// chroot tells that scripts take the node's directory for the machine.
	chroot bool
}

func managers() []manager {
	return []manager{
		dpkg("dpkg", true, "--force-architecture"),
		// As in the directory of an image that is being made.
		dpkg("dpkg without chroot", false, "--force-architecture", "--force-not-root", "--force-script-chrootless"),
		rpm("rpm"),
	}
}

func dpkg(name string, chroot bool, flags ...string) manager {
	with := func(args ...string) []string { return slices.Concat(flags, args) }
	return manager{
		name: name, program: "dpkg", format: "deb", chroot: chroot,
		install: with("-i"), verify: with("-V", "cri-proxy"), remove: with("-r", "cri-proxy"), purge: with("-P", "cri-proxy"),
	}
}

func rpm(name string) manager {
	db := "--dbpath=/var/lib/rpm" // Debian's would be in the home directory.
	return manager{
		name: name, program: "rpm", format: "rpm", chroot: true,
		install: []string{db, "--ignorearch", "-U", "--replacepkgs", "--oldpackage"}, verify: []string{db, "-V", "cri-proxy"}, remove: []string{db, "-e", "cri-proxy"},
	}
}

// node is a directory that a package manager and the packages' scripts take for the
// machine, so that the machine's own packages stay as they are. Its systemd only
// writes down what it is asked.
type node struct {
	*testing.T
	manager
	root string
	bare map[string]fs.FileMode
}

func newNode(t *testing.T, m manager) *node {
	t.Helper()
	if _, err := exec.LookPath(m.program); err != nil {
		t.Skipf("LEFT OUT: the .%s is tested with %s, which is not here", m.format, m.program)
	}
	n := &node{T: t, manager: m, root: t.TempDir()}
	for _, dir := range []string{
		"usr/bin", "usr/lib/systemd/system", "usr/share/doc", "usr/share/man/man1", "root", "run/systemd/system", "etc", "tmp",
		"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/rpm", "var/lib/kubelet", "var/log", "var/tmp",
	} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write("/var/lib/dpkg/status", "")
	n.write("/var/lib/dpkg/available", "")
	n.program("sh", "/bin/sh")
	n.program("grep", "/usr/bin/grep")
	n.program("rm", "/usr/bin/rm")
	n.program("rmdir", "/usr/bin/rmdir")
	n.write("/usr/bin/systemctl", "#!/bin/sh\necho \"$*\" >> /var/log/systemctl\n")
	if err := os.Chmod(filepath.Join(n.root, "usr/bin/systemctl"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.bare = n.files()
	if n.chroot {
		n.needChroot()
	}
	return n
}

// program copies one from the machine, with its libraries.
func (n *node) program(name, to string) {
	n.Helper()
	file, err := exec.LookPath(name)
	if err != nil {
		n.Fatal(err)
	}
	// It fails for a static program, which has none.
	libraries, _ := exec.CommandContext(n.Context(), "ldd", file).Output() //nolint:errcheck // As the comment says.
	n.copy(file, to)
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
		n.copy(library, library)
	}
}

func (n *node) copy(from, to string) {
	n.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		n.Fatal(err)
	}
	n.write(to, string(text))
	if err := os.Chmod(filepath.Join(n.root, to), 0o755); err != nil {
		n.Fatal(err)
	}
}

func (n *node) write(name, text string) {
	n.Helper()
	path := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		n.Fatal(err)
	}
}

func (n *node) delete(name string) {
	n.Helper()
	if err := os.RemoveAll(filepath.Join(n.root, name)); err != nil {
		n.Fatal(err)
	}
}

// asRoot are the attributes of a process that is to be root: of a user namespace,
// where the test is not root.
func asRoot() *syscall.SysProcAttr {
	if os.Getuid() == 0 {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

// needChroot leaves the test out where nobody may do what the manager is to do.
func (n *node) needChroot() {
	n.Helper()
	c := exec.CommandContext(n.Context(), "/bin/sh", "-c", ":")
	c.SysProcAttr, c.Dir = asRoot(), "/"
	c.SysProcAttr.Chroot = n.root
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "LEFT OUT: %s: it needs root, or user namespaces: %v %s\n", n.Name(), err, out)
		n.SkipNow()
	}
}

func (n *node) run(args ...string) (string, error) {
	n.Helper()
	c := exec.CommandContext(n.Context(), n.manager.program, append([]string{"--root=" + n.root}, args...)...)
	if n.chroot {
		c.SysProcAttr = asRoot()
	}
	out, err := c.CombinedOutput()
	return string(out), err
}

func (n *node) mustRun(args []string, more ...string) {
	n.Helper()
	args = slices.Concat(args, more)
	if out, err := n.run(args...); err != nil {
		n.Fatalf("%s %q: %v\n%s", n.manager.program, args, err, out)
	}
}

// asked is what systemctl was asked since the last time.
func (n *node) asked() string {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, "var/log/systemctl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.Fatal(err)
	}
	n.delete("var/log/systemctl")
	return string(text)
}

// files are all, with directories, but the manager's own and those of a bare node.
func (n *node) files() map[string]fs.FileMode {
	n.Helper()
	found := map[string]fs.FileMode{}
	err := filepath.WalkDir(n.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, n.root)
		if name == "/var/lib/dpkg" || name == "/var/lib/rpm" || name == "/var/log" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err == nil {
			found[name] = info.Mode()
		}
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	maps.DeleteFunc(found, func(name string, _ fs.FileMode) bool { _, ok := n.bare[name]; return ok })
	return found
}

// small makes a package with the real scripts and one file.
func small(t *testing.T, format, version string) string {
	t.Helper()
	variables := map[string]string{"GOARCH": runtime.GOARCH, "VERSION": version}
	config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(repository, "configs/package/nfpm.yaml"), func(name string) string { return variables[name] })
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range []*string{&config.Scripts.PostInstall, &config.Scripts.PreRemove, &config.Scripts.PostRemove} {
		*script = filepath.Join(repository, *script)
	}
	config.Contents = files.Contents{{Source: filepath.Join(repository, "LICENSE"), Destination: "/usr/bin/cri-proxy"}}
	packager, err := nfpm.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "cri-proxy."+format))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := packager.Package(nfpm.WithDefaults(&config.Info), out); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
