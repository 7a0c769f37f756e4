package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

const (
	prefix      = "rigkind" // of the folder and the cgroup
	startWithin = time.Minute
	tailBytes   = 8192
)

// Docker is a daemon in namespaces of its own, with a folder that everything
// of it lies in.
type Docker struct {
	Dir string

	cmd     *exec.Cmd // the first process of the namespaces
	done    chan struct{}
	logFile *os.File
	lock    *os.File
	saved   map[string][]byte // settings of the kernel, as they were
	modules bool              // the machine has a folder for its kernel's modules
}

// beginning is what the first process does. It stays, so that it buries what
// others leave behind.
const beginning = `
mount --make-rprivate / && mount -t proc proc /proc && ip link set lo up || exit 1
dockerd "$@" &
wait
`

// Missing says what this machine lacks for a daemon, and what to do.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("a Docker daemon and kind need root: run this as root")
	}
	for _, program := range []string{"dockerd", "docker", "debootstrap", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: run sh test/real/deps.sh kind as root: %w", program, err)
		}
	}
	return nil
}

// StartDocker starts a daemon that runs containers with the machine's runc, or
// with what its restrictions call for.
func StartDocker(ctx context.Context, parts rig.Parts) (*Docker, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	if err := rig.Sweep(ctx); err != nil {
		return nil, fmt.Errorf("clean up after a test that was killed: %w", err)
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(modules)
	d := &Docker{Dir: dir, done: make(chan struct{}), modules: err == nil}
	if err := d.start(ctx, parts); err != nil {
		return nil, errors.Join(err, d.Close(ctx))
	}
	return d, nil
}

func (d *Docker) start(ctx context.Context, parts rig.Parts) (err error) {
	if err := d.hold(); err != nil {
		return err
	}
	if d.saved, err = saveSettings(); err != nil {
		return err
	}
	arguments, err := restrictedDaemon(d.Dir, parts)
	if err != nil {
		return err
	}
	arguments = append(arguments,
		"--data-root", d.file("data"), "--exec-root", d.file("exec"), "--pidfile", d.file("docker.pid"), "--host", d.Host(),
		"--bridge", "none", "--insecure-registry", "172.16.0.0/12", "--cgroup-parent", "/"+filepath.Base(d.Dir))
	if d.logFile, err = os.Create(d.file("docker.log")); err != nil {
		return err
	}
	d.cmd = exec.CommandContext(context.WithoutCancel(ctx), "sh", append([]string{"-c", beginning, "sh"}, arguments...)...)
	d.cmd.Stdout, d.cmd.Stderr = d.logFile, d.logFile
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	started := make(chan error, 1)
	go d.live(started)
	if err := <-started; err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := rig.Poll(ctx, func() error { _, err := d.Run(ctx, nil, "version"); return err }); err != nil {
		return fmt.Errorf("start dockerd: %w\n%s", err, d.Log())
	}
	return nil
}

// live runs the daemon on a thread of its own: the kernel ends the daemon when
// the thread that started it ends, and Go ends threads as it likes.
func (d *Docker) live(started chan<- error) {
	runtime.LockOSThread()
	defer close(d.done)
	err := d.cmd.Start()
	started <- err
	if err == nil {
		_ = d.cmd.Wait() //nolint:errcheck // It is killed, or the next command says that it is away.
	}
}

// Host is the daemon's address, as in DOCKER_HOST.
func (d *Docker) Host() string { return "unix://" + d.file("docker.sock") }

func (d *Docker) file(name string) string { return filepath.Join(d.Dir, name) }

// Log is the end of the daemon's log.
func (d *Docker) Log() string {
	content, err := os.ReadFile(d.file("docker.log"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-tailBytes):])
}

// Command is a program of the machine on the daemon's network, which speaks to
// the daemon if it speaks to any.
func (d *Docker) Command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	namespace := fmt.Sprintf("--net=/proc/%d/ns/net", d.cmd.Process.Pid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{namespace, name}, arguments...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+d.Host(), "DOCKER_CONFIG="+d.file("config"), "DOCKER_BUILDKIT=0", "KUBECONFIG="+d.Kubeconfig())
	// A command that is given up ends with its own children, such as make's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// Kubeconfig is where kind writes.
func (d *Docker) Kubeconfig() string { return d.file("kubeconfig") }

// Run is a docker command.
func (d *Docker) Run(ctx context.Context, input io.Reader, arguments ...string) (string, error) {
	return output(d.Command(ctx, "docker", arguments...), input)
}

// output runs a command and returns its standard output; an error has the other.
func output(cmd *exec.Cmd, input io.Reader) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Close ends the daemon and its containers, and removes what they left.
func (d *Docker) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startWithin)
	defer cancel()
	var problems []error
	if d.cmd != nil && d.cmd.Process != nil {
		// With the first process all others of the namespace end, and with them the
		// mounts, bridges and rules of their namespaces.
		if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			problems = append(problems, err)
		}
		<-d.done
	}
	if d.logFile != nil {
		problems = append(problems, d.logFile.Close())
	}
	problems = append(problems, restoreSettings(d.saved), d.removeModules(), removeCgroups(ctx, filepath.Base(d.Dir)))
	problems = append(problems, rig.Poll(ctx, func() error { return os.RemoveAll(d.Dir) }))
	if d.lock != nil { // Given up last: two must not clean up at one time.
		problems = append(problems, d.lock.Close())
	}
	return errors.Join(problems...)
}
