package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
)

// ErrNotInstalled is returned where there is nothing to take away.
var ErrNotInstalled = errors.New("cri-proxy install has changed nothing on this node, so there is nothing to restore")

// restore brings a file back to what it was.
func (o Options) restore(c change) error {
	err := o.removeHalves(c)
	if c.Made {
		return errors.Join(err, ignoreMissing(os.Remove(o.path(c.Path))))
	}
	return errors.Join(err, o.write(c, c.before))
}

// removeHalves removes what a write that was killed has left beside a file.
func (o Options) removeHalves(c change) error {
	path, err := o.target(c)
	if err != nil {
		return err
	}
	halves, err := filepath.Glob(halfOf(path) + "*")
	for _, half := range halves {
		err = errors.Join(err, ignoreMissing(os.Remove(half)))
	}
	return err
}

// Uninstall brings every file that was changed back to what it was, and the
// kubelet to its runtime. It refuses where something would be lost, unless it is
// forced: files that were changed since, pods that only the proxy knows, a runtime
// that does not answer. A configuration that was made and has been edited stays.
func Uninstall(ctx context.Context, o Options) error {
	o = o.withDefaults()
	m, err := o.load()
	if err != nil {
		return err
	}
	if m == nil {
		return ErrNotInstalled
	}
	kept, err := o.keep(m)
	if err == nil && !o.Force {
		err = o.checkLeaving(ctx, m)
	}
	if err != nil {
		return err
	}
	p := &Plan{o: o, m: *m}
	steps := p.steps()
	var errs []error
	for i, s := range slices.Backward(steps) {
		if s.undo != nil && (i > 0 || errors.Join(errs...) == nil) {
			errs = append(errs, s.undo(ctx))
		}
	}
	for _, file := range kept {
		errs = append(errs, o.say("%s was edited since it was made, and stays", file))
	}
	return errors.Join(errs...)
}

// keep takes out of the manifest what is not to be restored, and refuses where
// somebody else's change would be lost.
func (o Options) keep(m *manifest) (kept []string, err error) {
	var files []change
	var changed []string
	for _, c := range m.Files {
		untouched, err := o.untouched(c)
		if err != nil {
			return nil, err
		}
		switch {
		case untouched:
		case c.Made && c.Path == m.Config:
			kept = append(kept, c.Path)
			continue
		default:
			changed = append(changed, c.Path)
		}
		files = append(files, c)
	}
	if len(changed) > 0 && !o.Force {
		return nil, fmt.Errorf("changed since they were written: %s; what is in them would be lost: --force restores them to what they were on %s",
			strings.Join(changed, ", "), m.Created.Format("2006-01-02"))
	}
	m.Files = files
	return kept, nil
}

// checkLeaving refuses what the kubelet would not survive, or its pods.
func (o Options) checkLeaving(ctx context.Context, m *manifest) error {
	_, err := o.askRuntime(ctx, m.Runtime)
	if err != nil {
		return fmt.Errorf("the runtime %s, to which the kubelet would go back, does not answer: start it first (--force goes on): %w", m.Runtime, err)
	}
	cfg, err := configs.Load(o.path(m.Config))
	if err != nil {
		return nil //nolint:nilerr // Without a configuration no other backend had pods through this proxy.
	}
	for name, b := range cfg.Backends {
		if same(b.Endpoint, m.Runtime) {
			continue
		}
		pods := 0
		err := o.call(ctx, b.Endpoint, func(ctx context.Context, api runtimeapi.RuntimeServiceClient) error {
			list, err := api.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			pods = len(list.GetItems())
			return err
		})
		if err != nil {
			return fmt.Errorf("whether backend %s has pods, which the kubelet would lose, cannot be told (--force goes on): %w", name, err)
		}
		if pods > 0 {
			return fmt.Errorf("backend %s has %d pods, which the kubelet would lose sight of: drain the node first (--force goes on)", name, pods)
		}
	}
	return nil
}

// UninstallDiff is what Uninstall would do, as text, or would do if it did not refuse.
func UninstallDiff(ctx context.Context, o Options) (string, error) {
	o = o.withDefaults()
	m, err := o.load()
	if err != nil {
		return "", err
	}
	if m == nil {
		return "", ErrNotInstalled
	}
	if _, err := o.keep(m); err != nil {
		return "", err
	}
	p := &Plan{o: o, m: *m}
	for i := range p.m.Files {
		c := &p.m.Files[i]
		now, err := os.ReadFile(o.path(c.Path))
		if ignoreMissing(err) != nil {
			return "", err
		}
		c.before, c.after = now, c.before
	}
	if !o.Force {
		err = o.checkLeaving(ctx, m)
	}
	return p.undoDiff(), err
}

// undoDiff shows the files of the plan, whose texts are now and then, and the commands.
func (p *Plan) undoDiff() string {
	var b strings.Builder
	for _, c := range p.m.Files {
		then := c.Path
		if c.Made {
			then = "/dev/null"
		}
		b.Write(diff.Diff(c.Path, c.before, then, c.after))
	}
	fmt.Fprintf(&b, "run: systemctl restart %s\n", p.o.KubeletUnit)
	if !p.m.Enabled {
		fmt.Fprintf(&b, "run: systemctl stop %[1]s %[2]s\nrun: systemctl disable %[2]s %[1]s\n", serviceName, socketName)
	}
	b.WriteString("run: systemctl daemon-reload\n")
	return b.String()
}
