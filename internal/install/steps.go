package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// undoTime is how long all of an undoing may take; it does not end with the caller.
const undoTime = 2 * time.Minute

// step is one thing that is done, and how it is undone.
type step struct {
	name    string
	command []string // Of systemctl; nil is a step of our own.
	do      func(context.Context) error
	undo    func(context.Context) error
}

// steps are the whole installation. The proxy answers before the kubelet is led to it.
func (p *Plan) steps() []step {
	kubelet := p.o.KubeletUnit
	var own, kubelets []change
	for _, c := range p.m.Files {
		if c.Path == p.o.Config || filepath.Dir(c.Path) == unitDir {
			own = append(own, c)
		} else {
			kubelets = append(kubelets, c)
		}
	}
	reload := p.command("daemon-reload")
	steps := []step{
		{name: "remember", do: func(context.Context) error { return p.o.save(&p.m) }, undo: func(context.Context) error { return p.o.forget(&p.m) }},
		{name: "tell systemd of the units as they were", undo: reload.do}, // Once they are.
	}
	for _, c := range own {
		steps = append(steps, p.fileStep(c))
	}
	steps = append(steps, reload)
	enable, start := p.command("enable", socketName, serviceName), p.command("restart", serviceName)
	if !p.m.Enabled {
		enable.undo = p.command("disable", socketName, serviceName).do
		start.undo = p.command("stop", serviceName, socketName).do
	}
	steps = append(steps, enable, start, step{name: "wait for the proxy", do: p.waitProxy})
	restart := p.command("restart", kubelet)
	steps = append(steps, step{name: "lead the kubelet back", undo: restart.do})
	for _, c := range kubelets {
		steps = append(steps, p.fileStep(c))
	}
	return append(steps, restart, step{name: "watch the node", do: p.watchNode})
}

func (p *Plan) command(args ...string) step {
	return step{
		name: "systemctl " + strings.Join(args, " "), command: args,
		do: func(ctx context.Context) error { return p.o.systemctl(ctx, args...) },
	}
}

func (p *Plan) fileStep(c change) step {
	return step{
		name: "write " + c.Path,
		do: func(context.Context) error {
			if err := os.MkdirAll(p.o.path(filepath.Dir(c.Path)), 0o755); err != nil {
				return err
			}
			return p.o.write(c, c.after)
		},
		undo: func(context.Context) error { return p.o.restore(c) },
	}
}

// Install does it. When it fails, or ctx ends, the node is as it was before, or the
// error says what is not.
func (p *Plan) Install(ctx context.Context) error {
	steps := p.steps()
	for i, s := range steps {
		if s.do == nil {
			continue
		}
		err := errors.Join(ctx.Err(), p.o.say("%s", s.name))
		if err == nil {
			err = s.do(ctx)
		}
		if err == nil && p.o.Failpoint != nil {
			err = p.o.Failpoint(s.name)
		}
		if err != nil {
			return p.undo(ctx, steps[:i+1], fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return nil
}

// undo undoes steps in reverse, the failed one as well: it may be half done.
func (p *Plan) undo(ctx context.Context, steps []step, reason error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_ = p.o.say("failed, so everything is put back: %v", reason) //nolint:errcheck // The caller hears it too; what nobody reads must not keep the backups.
	var errs []error
	for i, s := range slices.Backward(steps) {
		if s.undo == nil {
			continue
		}
		if i == 0 && errors.Join(errs...) != nil {
			break // The backups stay for the next try.
		}
		if err := s.undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %q: %w", s.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; and not everything could be put back, so run cri-proxy uninstall --force: %w", reason, err)
	}
	return fmt.Errorf("%w; everything is as it was before", reason)
}
