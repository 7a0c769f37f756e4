// Package process runs one program and reads what it costs: processor time and
// memory, as Linux counts them for that process alone.
//
// A process is ended by the id that its start returned, and Stop returns when
// it has ended. It is not for programs that start others: theirs is not counted.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stopWithin = 10 * time.Second
	pollEvery  = 10 * time.Millisecond
	logTail    = 4096 // bytes of a log in an error
)

// Process is one running program.
type Process struct {
	Name string // in errors

	cmd  *exec.Cmd
	log  string // file
	done chan struct{}
	err  error // how it ended; set when done is closed
}

// Options say what Start starts.
type Options struct {
	Name string
	Path string
	Args []string
	Log  string // file for its output
}

// Start starts a program. It outlives ctx; Stop ends it.
func Start(ctx context.Context, o Options) (*Process, error) {
	log, err := os.Create(o.Log)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: o.Name, log: o.Log, done: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), o.Path, o.Args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// An interrupt from the keyboard is for the benchmark to handle.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", o.Name, err), log.Close())
	}
	go func() {
		defer close(p.done)
		p.err = errors.Join(p.cmd.Wait(), log.Close())
	}()
	return p, nil
}

// WaitReady asks ready until it succeeds, the process ends, or ctx does.
func (p *Process) WaitReady(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.Name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", p.Name, ctx.Err(), err, p.tail())
		case <-ticker.C:
		}
	}
}

// Stop asks the process to end, kills it if it does not, and waits for it.
func (p *Process) Stop() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w\n%s", p.Name, p.err, p.tail())
		}
		return nil
	case <-timer.C:
	}
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return errors.Join(fmt.Errorf("%s did not end within %s of SIGTERM\n%s", p.Name, stopWithin, p.tail()), err)
}

func (p *Process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// tail is the end of the log, for the reader of a failure.
func (p *Process) tail() []byte {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(content[max(0, len(content)-logTail):])
}

// CPU is the processor time that the process has used, user and system, all
// threads. It reads the process's own clock (clock_getcpuclockid(3)), which
// counts nanoseconds where /proc/PID/stat counts hundredths of a second.
func (p *Process) CPU() (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED
	clock := int32(^p.cmd.Process.Pid)<<3 | schedClock
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", p.Name, err)
	}
	return time.Duration(used.Nano()), nil
}

// Memory is resident memory in bytes.
type Memory struct {
	Resident int64 // now
	Peak     int64 // the most since the start or ResetPeak
}

// Memory reads the process's resident memory.
func (p *Process) Memory() (Memory, error) {
	content, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of %s: %w", p.Name, err)
	}
	var m Memory
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "VmRSS":
			m.Resident, err = kibibytes(value)
		case "VmHWM":
			m.Peak, err = kibibytes(value)
		}
		if err != nil {
			return Memory{}, fmt.Errorf("read %s of %s: %w", key, p.Name, err)
		}
	}
	return m, nil
}

// kibibytes reads "	  2168 kB".
func kibibytes(value string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
	return n << 10, err
}

// ResetPeak makes the peak what is resident now.
func (p *Process) ResetPeak() error {
	const resetPeak = "5" // proc_pid_clear_refs(5)
	if err := os.WriteFile(p.proc("clear_refs"), []byte(resetPeak), 0); err != nil {
		return fmt.Errorf("reset the peak memory of %s: %w", p.Name, err)
	}
	return nil
}

func (p *Process) proc(file string) string {
	return "/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/" + file
}
