package real_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// documentImage is the image that the documents' examples are about.
const documentImage = "registry.example.org/app:1"

// documented is a node that is as the documents have it. Its files and sockets lie
// in a folder of the rig and are where they should be in mount namespaces of
// their own: each command that a document names runs in one, as does the daemon,
// and the machine sees none of it.
type documented struct {
	*node

	root   string // what is /etc/cri-proxy, /run, … to the commands
	blocks []rig.Block
	proxy  rig.Proxy // its sockets
	daemon *exec.Cmd
	ended  chan error
	hooked bool
}

// namespace makes the mounts and becomes the command in its arguments. What lies
// in /etc and /var/lib of the machine stays readable, since programs need it.
const namespace = `set -e
mount -t tmpfs layers "$NODE/layers"
for folder in /etc /var/lib; do
	mkdir -p "$NODE/layers$folder/upper" "$NODE/layers$folder/work"
	mount -t overlay layer -o "lowerdir=$folder,upperdir=$NODE/layers$folder/upper,workdir=$NODE/layers$folder/work" "$folder"
done
mkdir -p /etc/cri-proxy /var/lib/cri-proxy
for folder in /etc/cri-proxy /var/lib/cri-proxy /run; do mount --bind "$NODE$folder" "$folder"; done
mount --bind "$NODE/bin" bin
exec "$@"`

// newDocumented starts the containerds and writes the README's configuration.
func newDocumented(ctx context.Context, t *testing.T, blocks []rig.Block) *documented {
	t.Helper()
	d := &documented{node: &node{Rig: newRig(ctx, t)}, blocks: blocks}
	if err := d.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.alpha, err = d.Containerd(ctx, rig.ContainerdOptions{Name: "alpha"}); err != nil {
		t.Fatal(err)
	}
	if d.beta, err = d.Containerd(ctx, rig.ContainerdOptions{Name: "beta", Handlers: []string{"runsc"}}); err != nil {
		t.Fatal(err)
	}
	d.root = filepath.Join(d.Dir, "node")
	for _, folder := range []string{"layers", "bin", "etc/cri-proxy", "var/lib/cri-proxy", "var/lib/kubelet", "run/containerd", "run/containerd-sandboxed"} {
		if err := os.MkdirAll(filepath.Join(d.root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.proxy = rig.Proxy{Socket: filepath.Join(d.root, "run/cri-proxy/cri-proxy.sock"), Admin: filepath.Join(d.root, "run/cri-proxy/admin.sock")}
	err = errors.Join(
		os.Symlink(d.alpha.Socket, filepath.Join(d.root, "run/containerd/containerd.sock")),
		os.Symlink(d.beta.Socket, filepath.Join(d.root, "run/containerd-sandboxed/containerd.sock")),
		os.WriteFile(d.config(), []byte(d.readme(t)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	makeBin(t, filepath.Join(d.Options.Root, "bin"))
	t.Cleanup(func() { d.stop(t) })
	return d
}

// makeBin makes the folder that "make build" writes to, for a mount on it. Where it
// was not there it is taken away again.
func makeBin(t *testing.T, folder string) {
	t.Helper()
	switch err := os.Mkdir(folder, 0o755); {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		t.Fatal(err)
	default:
		t.Cleanup(func() {
			if err := os.Remove(folder); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
				t.Error(err)
			}
		})
	}
}

func (d *documented) config() string { return filepath.Join(d.root, "etc/cri-proxy/config.toml") }

// readme is the configuration in the README.
func (d *documented) readme(t *testing.T) string {
	t.Helper()
	for _, b := range d.blocks {
		if b.File == "README.md" && b.Test == "config" {
			return b.Text
		}
	}
	t.Fatal("the README has no configuration")
	return ""
}

// sh prepares commands of a document, in the repository.
func (d *documented) sh(ctx context.Context, commands string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", namespace, "namespace", "/bin/sh", "-e", "-c", commands)
	cmd.Dir = d.Options.Root
	cmd.Env = append(os.Environ(), "NODE="+d.root, "PATH="+filepath.Dir(d.Program("cri-proxy"))+":"+d.Parts.CRITools+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes its mounts private.
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs commands, and returns all that they print.
func (d *documented) run(ctx context.Context, t *testing.T, commands string) string {
	t.Helper()
	output, err := d.sh(ctx, commands).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, commands, output)
	}
	return string(output)
}

// testNode runs a block. Its daemon goes on beside what comes after it.
func testNode(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	if b.File != "README.md" {
		d.hook(ctx, t)
	}
	serving := regexp.MustCompile(`(?m)^(\S*cri-proxy run\b[^#\n]*).*\n`)
	at := serving.FindStringSubmatchIndex(b.Text)
	if at == nil {
		wantPromises(t, b.Text, d.run(ctx, t, b.Text))
		return
	}
	before, command, after := b.Text[:at[0]], b.Text[at[2]:at[3]], b.Text[at[1]:]
	wantPromises(t, before, d.run(ctx, t, before))
	d.serve(ctx, t, command)
	wantPromises(t, after, d.run(ctx, t, after))
}

// serve starts the daemon, and a pod on each handler.
func (d *documented) serve(ctx context.Context, t *testing.T, command string) {
	t.Helper()
	log, err := os.Create(filepath.Join(d.Dir, "documents.log"))
	if err != nil {
		t.Fatal(err)
	}
	d.daemon, d.ended = d.sh(context.WithoutCancel(ctx), "exec "+command), make(chan error, 1)
	d.daemon.Stdout, d.daemon.Stderr = log, log
	if err := d.daemon.Start(); err != nil {
		t.Fatal(errors.Join(err, log.Close()))
	}
	go func() { d.ended <- errors.Join(d.daemon.Wait(), log.Close()) }()
	c := crictl(t, d.node, d.proxy.Endpoint())
	waitFor(ctx, t, func() error { _, err := c.Run(ctx, "version"); return err })
	if _, err := d.Push(ctx, documentImage, rig.Image{}); err != nil {
		t.Fatal(err)
	}
	for _, handler := range []string{"runc", "gvisor"} {
		d.pod(ctx, t, handler, "on-"+handler, nil)
	}
}

// stop ends the daemon as systemd would.
func (d *documented) stop(t *testing.T) {
	t.Helper()
	if d.daemon == nil {
		return
	}
	if t.Failed() {
		t.Log(read(t, filepath.Join(d.Dir, "documents.log")))
	}
	if err := errors.Join(d.daemon.Process.Signal(syscall.SIGTERM), <-d.ended); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// pod starts a pod with one container, "app", which serves HTTP.
func (d *documented) pod(ctx context.Context, t *testing.T, handler, name string, annotations map[string]string) (container string) {
	t.Helper()
	c, config := crictl(t, d.node, d.proxy.Endpoint()), newPod(t, d.node, name)
	maps.Copy(config.GetAnnotations(), annotations)
	id, err := c.RunPod(ctx, handler, config)
	if err != nil {
		t.Fatal(err)
	}
	app := rig.Container(config, "app", documentImage, "/bin/serve", "8080")
	app.Annotations["io.kubernetes.container.ports"] = `[{"name":"web","containerPort":8080,"protocol":"TCP"}]`
	if container, err = c.Start(ctx, id, config, app); err != nil {
		t.Fatal(err)
	}
	return container
}

// hook gives the node, once, what documents beside the README speak of: a handler
// with a hook, which fails, and which lets pods bring hooks.
func (d *documented) hook(ctx context.Context, t *testing.T) {
	t.Helper()
	if d.hooked {
		return
	}
	d.hooked = true
	config := d.readme(t) + `
[handlers.gvisor.hooks]
allow_pod_hooks = true
[[handlers.gvisor.hooks.post_start]]
name = "register"
exec = { command = ["/bin/exit", "4"] }
on_failure = "ignore"
match = { containers = ["app"], namespaces = [], labels = {} }
`
	if err := errors.Join(os.WriteFile(d.config(), []byte(config), 0o600), d.daemon.Process.Signal(syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	var status struct{ LastReload struct{ Success bool } }
	waitFor(ctx, t, func() error {
		body, err := d.proxy.AdminGet(ctx, "/v1/status")
		if err := errors.Join(err, json.Unmarshal(body, &status)); err != nil {
			return err
		}
		if !status.LastReload.Success {
			return fmt.Errorf("not reloaded: %s", body)
		}
		return nil
	})
	d.pod(ctx, t, "gvisor", "hooked", nil)
}

// promise is what a command prints.
type promise struct {
	command string // a part of it
	prints  []string
}

func promises() []promise {
	return []promise{
		{"make build", nil}, // What it builds is run next.
		{"cri-proxy config default", []string{"# The configuration of cri-proxy.", "default_handler = "}},
		{"cri-proxy config validate", []string{"/etc/cri-proxy/config.toml is valid"}},
		{"cri-proxy config dump", []string{"list_timeout = ", "endpoint = 'unix:///run/containerd-sandboxed/containerd.sock'"}},
		{"cri-proxy status", []string{"READY", "gvisor", "runsc", "sandboxed"}},
		{"cri-proxy images list", []string{documentImage, "gvisor", "sandboxed"}},
		{"cri-proxy images pull --handler gvisor", []string{"pulled " + documentImage + " for handler gvisor"}},
		{"cri-proxy images copy --from runc --to gvisor", []string{"handler gvisor has " + documentImage}},
		{"crictl --runtime-endpoint unix:///run/cri-proxy/cri-proxy.sock pods", []string{"on-runc", "on-gvisor"}},
		{"/livez", []string{"ok\n"}},
		{"/readyz", []string{"ok\n"}},
		{"/metrics", []string{`cri_proxy_backend_up{backend="sandboxed"} 1`}},
		{"/debug/pprof/goroutine", []string{"goroutine profile:"}},
		{"/v1/status", []string{`"defaultHandler":"runc"`, `"ready":true`}},
		{"id=$(cri-proxy hooks list", nil},
		{"/v1/hooks", []string{`"state":"failed"`}},
		{"/v1/images/pull", []string{`{"started":{"image":"` + documentImage, `{"result":{"id":"sha256:`}},
		{"/v1/images/copy", []string{`"message":"nothing to do`}},
		{"/v1/images", []string{`{"stores":[{"backend":"sandboxed"`}},
	}
}

// wantPromises looks at what commands have printed: each has something to look for.
func wantPromises(t *testing.T, commands, printed string) {
	t.Helper()
	commands = strings.ReplaceAll(commands, "\\\n", "")
	for line := range strings.Lines(commands) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		known := false
		for _, p := range promises() {
			if !strings.Contains(line, p.command) || known {
				continue
			}
			known = true
			if err := contains(printed, p.prints...); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		if !known {
			t.Errorf("nothing is known of what %q prints: say it in promises", line)
		}
	}
}

// command runs the built program, outside of a namespace.
func (d *documented) command(ctx context.Context, folder string, arguments ...string) (string, error) {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, d.Program("cri-proxy"), arguments...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &output, &output
	err := cmd.Run()
	return output.String(), err
}
