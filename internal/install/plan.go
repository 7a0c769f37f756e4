package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/kubelet"
)

const (
	serviceName = "cri-proxy.service"
	socketName  = "cri-proxy.socket"
	unitDir     = "/etc/systemd/system"
)

// ErrInstalled is wrapped where there is nothing to do.
var ErrInstalled = errors.New("it is installed already")

// Plan is an installation that was worked out and not begun.
type Plan struct {
	o   Options
	cfg *configs.Config
	m   manifest
}

// NewPlan works out what has to change. It changes nothing, and asks the runtime
// only where a configuration has to be made.
func NewPlan(ctx context.Context, o Options) (*Plan, error) {
	p := &Plan{o: o.withDefaults()}
	switch m, err := p.o.load(); {
	case err != nil:
		return nil, err
	case m != nil:
		return nil, fmt.Errorf("%w, on %s: cri-proxy uninstall takes it away, and finishes an installation that was killed", ErrInstalled, m.Created.Format(time.RFC3339))
	}
	settings, err := kubelet.Read(p.o.path("/"))
	if err != nil {
		return nil, err
	}
	if !settings.Found && len(o.KubeletConfigs) == 0 {
		return nil, fmt.Errorf("no kubelet runs here and there is no %s: name its configuration file by --kubelet-config", settings.ConfigFile)
	}
	p.m = manifest{Version: 1, Created: time.Now().UTC(), Runtime: p.o.runtime(settings), Config: p.o.Config}
	for _, add := range []func() error{
		func() error { return p.addConfig(ctx) },
		p.addUnits,
		p.addSocketDirs,
		func() error { return p.addKubelet(settings) },
	} {
		if err := add(); err != nil {
			return nil, err
		}
	}
	p.m.Enabled, err = p.o.systemctlSays(ctx, "is-enabled", "--quiet", serviceName)
	return p, err
}

func (o Options) runtime(settings kubelet.Settings) string {
	for _, endpoint := range []string{o.Runtime, settings.Endpoint.Text} {
		if endpoint != "" {
			return endpoint
		}
	}
	return kubelet.DefaultEndpoint
}

// addConfig loads the configuration or has one made.
func (p *Plan) addConfig(ctx context.Context) error {
	cfg, err := configs.Load(p.o.path(p.o.Config))
	if err == nil {
		p.cfg = cfg
		return p.checkRuntime()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the configuration that is there cannot be used, and none is overwritten:\n%w", err)
	}
	if standard := configs.Default().Server.Listen; same(p.m.Runtime, standard) {
		return fmt.Errorf("%w: the kubelet's endpoint is %s", ErrInstalled, standard)
	}
	text, err := p.o.makeConfig(ctx, p.m.Runtime)
	if err != nil {
		return err
	}
	if p.cfg, err = configs.Parse(p.o.Config, text); err != nil {
		return fmt.Errorf("the configuration made from %s is not valid:\n%w", p.m.Runtime, err)
	}
	p.m.Files = append(p.m.Files, newFile(p.o.Config, text))
	return p.checkRuntime()
}

// checkRuntime: a kubelet whose runtime the proxy does not have would lose its pods.
func (p *Plan) checkRuntime() error {
	if same(p.m.Runtime, p.cfg.Server.Listen) {
		return fmt.Errorf("%w: the kubelet's endpoint is %s", ErrInstalled, p.m.Runtime)
	}
	for _, b := range p.cfg.Backends {
		if same(b.Endpoint, p.m.Runtime) {
			return nil
		}
	}
	return fmt.Errorf("the kubelet's runtime %s is no backend in %s: its pods would be lost; add it there", p.m.Runtime, p.o.Config)
}

func same(a, b string) bool {
	left, err := configs.SocketPath(a)
	right, otherErr := configs.SocketPath(b)
	return err == nil && otherErr == nil && left == right
}

// addUnits writes the units, unless a package has brought them.
func (p *Plan) addUnits() error {
	path, err := configs.SocketPath(p.cfg.Server.Listen)
	if err != nil {
		return err
	}
	mode, err := p.cfg.Server.SocketMode.MarshalText()
	if err != nil {
		return err
	}
	run := p.o.Binary + " run"
	if p.o.Config != "/etc/cri-proxy/config.toml" {
		run += " --config " + p.o.Config
	}
	service := replaceLine(configs.ServiceUnit(), "ExecStart=", run)
	service = replaceLine(service, "ReadWritePaths=", filepath.Dir(path))
	socket := replaceLine(configs.SocketUnit(), "ListenStream=", path)
	socket = replaceLine(socket, "SocketMode=", string(mode))
	return errors.Join(p.addUnit(serviceName, service), p.addUnit(socketName, socket))
}

// addSocketDirs: systemd makes the sockets' directories, and leaves them behind.
func (p *Plan) addSocketDirs() error {
	for _, endpoint := range []string{p.cfg.Server.Listen, p.cfg.Admin.Listen} {
		path, err := configs.SocketPath(endpoint)
		if err != nil {
			return err
		}
		p.m.Dirs = append(p.m.Dirs, p.o.missing(filepath.Dir(path))...)
	}
	return nil
}

func replaceLine(text []byte, key, value string) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines {
		if bytes.HasPrefix(line, []byte(key)) {
			lines[i] = []byte(key + value + "\n")
		}
	}
	return bytes.Join(lines, nil)
}

func (p *Plan) addUnit(name string, text []byte) error {
	file := filepath.Join(unitDir, name)
	before, err := os.ReadFile(p.o.path(file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, dir := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
			if packaged, err := os.ReadFile(p.o.path(filepath.Join(dir, name))); err == nil && bytes.Equal(packaged, text) {
				return nil
			}
		}
		p.m.Files = append(p.m.Files, newFile(file, text))
		return nil
	case err != nil:
		return err
	}
	return p.addEdit(file, before, text)
}

func (p *Plan) addEdit(file string, before, after []byte) error {
	if bytes.Equal(before, after) {
		return nil
	}
	c, err := p.o.edited(file, before, after)
	p.m.Files = append(p.m.Files, c)
	return err
}

// addKubelet changes the endpoint wherever the kubelet or kubeadm has one.
func (p *Plan) addKubelet(settings kubelet.Settings) error {
	files := append([]string{settings.ConfigFile, kubelet.InstanceConfigFile}, p.o.KubeletConfigs...)
	for _, file := range slices.Compact(files) {
		if err := p.addKubeletConfig(file, slices.Contains(p.o.KubeletConfigs, file)); err != nil {
			return err
		}
	}
	for _, file := range settings.DropIns {
		if settings.Endpoint.From == file || settings.ImageEndpoint.From == file {
			if err := p.addKubeletConfig(file, true); err != nil {
				return err
			}
		}
	}
	flags := false
	for _, file := range kubelet.FlagFiles() {
		before, err := os.ReadFile(p.o.path(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		after := kubelet.EditFlags(before, p.cfg.Server.Listen)
		flags = flags || !bytes.Equal(before, after)
		if err := errors.Join(err, p.addEdit(file, before, after)); err != nil {
			return err
		}
	}
	if strings.HasPrefix(settings.Endpoint.From, "the command line") && !flags {
		return fmt.Errorf("the kubelet's endpoint is a flag on %s, and in none of %s: take it out of the kubelet's unit first",
			settings.Endpoint.From, strings.Join(kubelet.FlagFiles(), ", "))
	}
	return nil
}

func (p *Plan) addKubeletConfig(file string, wanted bool) error {
	before, err := os.ReadFile(p.o.path(file))
	if errors.Is(err, fs.ErrNotExist) && !wanted {
		return nil
	}
	if err != nil {
		return err
	}
	after, err := kubelet.EditConfig(before, p.cfg.Server.Listen)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return p.addEdit(file, before, after)
}

// Diff is every change of a file, and the commands, as text.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, c := range p.m.Files {
		old := c.Path
		if c.Made {
			old = "/dev/null"
		}
		b.Write(diff.Diff(old, c.before, c.Path, c.after))
	}
	for _, s := range p.steps() {
		if s.command != nil {
			fmt.Fprintf(&b, "run: systemctl %s\n", strings.Join(s.command, " "))
		}
	}
	return b.String()
}
