package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	readyWithin = 30 * time.Second
	stopWithin  = 15 * time.Second
	pollEvery   = 25 * time.Millisecond
	tailBytes   = 4096
)

// process is one long-lived program of the rig. It is started and ended any
// number of times, always by the process id that the start returned, and all
// its runs write to one log file.
type process struct {
	name string // of the program, in errors and of the log file
	path string
	args []string
	env  []string // over the rig's own environment
	log  string   // file
	// within is how long it may take to be ready; 0 is readyWithin.
	within time.Duration

	running *run // nil while it is not running
}

// run is one life of a process. done is closed when it has ended and err is set.
type run struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// start runs the program and returns when ready answers without an error.
func (p *process) start(ctx context.Context, ready func(context.Context) error) error {
	if p.running != nil {
		return fmt.Errorf("start %s: it runs already", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	// It outlives the call, and an interrupt from the keyboard is ours to handle.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.path, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	p.running = &run{cmd: cmd, done: make(chan struct{})}
	go p.running.wait(log)
	if err := p.waitReady(ctx, ready); err != nil {
		return fmt.Errorf("start %s: %w\n%s", p.name, errors.Join(err, p.kill()), p.tail())
	}
	return nil
}

func (r *run) wait(log io.Closer) {
	defer close(r.done)
	r.err = errors.Join(r.cmd.Wait(), log.Close())
}

func (p *process) waitReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.within, readyWithin))
	defer cancel()
	return Poll(ctx, func() error {
		select {
		case <-p.running.done:
			return permanent{fmt.Errorf("it ended: %w", p.running.err)}
		default:
			return ready(ctx)
		}
	})
}

// stop asks the process to end, kills it if it does not, and waits for it.
// Of a process that does not run nothing is asked.
func (p *process) stop() error {
	if p.running == nil {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.running.done:
		p.running = nil
		return nil
	case <-time.After(stopWithin):
		return errors.Join(fmt.Errorf("%s did not end within %s\n%s", p.name, stopWithin, p.tail()), p.kill())
	}
}

// kill ends the process as a power failure would, and waits for it.
func (p *process) kill() error {
	if p.running == nil {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.running.done
	p.running = nil
	return nil
}

func (p *process) signal(signal syscall.Signal) error {
	if err := p.running.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// tail is the end of the log, for a reader of a failure.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(content) > tailBytes {
		content = content[len(content)-tailBytes:]
	}
	return fmt.Sprintf("--- end of %s:\n%s", filepath.Base(p.log), strings.TrimSpace(string(content)))
}

// permanent is an error that polling does not cure.
type permanent struct{ error }

// Poll calls check until it succeeds, fails for good, or ctx ends; then the
// last failure before that is the reason.
func Poll(ctx context.Context, check func() error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	for {
		err := check()
		if err == nil || errors.As(err, new(permanent)) {
			return err
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-ticker.C:
		}
	}
}
