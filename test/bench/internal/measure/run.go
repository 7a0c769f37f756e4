package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/process"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/report"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/stand"
)

// runner is one time through a plan.
type runner struct {
	Plan

	log    *logrus.Entry
	run    report.Run
	memory map[string]*report.Memory // by contestant; those with a process of their own
}

// Run goes through the plan once.
func Run(ctx context.Context, p Plan, log *logrus.Entry) (report.Run, error) {
	r := &runner{Plan: p, log: log, memory: map[string]*report.Memory{}}
	begin := time.Now()
	if err := r.on(ctx, 0, r.start); err != nil {
		return report.Run{}, err
	}
	for _, containers := range p.Nodes {
		if err := r.on(ctx, containers, r.node); err != nil {
			return report.Run{}, err
		}
	}
	for _, name := range stand.Names() {
		if m, ok := r.memory[name]; ok {
			r.run.Memory = append(r.run.Memory, *m)
		}
	}
	r.run.Took = time.Since(begin)
	return r.run, nil
}

// on does something on a stand of its own.
func (r *runner) on(ctx context.Context, containers int, do func(context.Context, *stand.Stand) error) error {
	s, err := stand.New(ctx, stand.Options{Self: r.Self, Proxy: r.Proxy, Containers: containers})
	if err != nil {
		return fmt.Errorf("put up a node of %d containers: %w", containers, err)
	}
	return errors.Join(do(ctx, s), s.Close())
}

// start reads the memory of what has just started, on an empty node.
func (r *runner) start(_ context.Context, s *stand.Stand) error {
	return r.eachMemory(s, func(m *report.Memory, now process.Memory) { m.Start = now.Resident })
}

func (r *runner) node(ctx context.Context, s *stand.Stand) error {
	if s.Containers == r.largest() {
		if err := r.relist(ctx, s); err != nil {
			return err
		}
	}
	for _, w := range r.workloads(s.Containers) {
		for _, callers := range r.Callers {
			if err := r.measure(ctx, s, w, callers); err != nil {
				return fmt.Errorf("%s on %d containers, %d callers: %w", w.Name, w.Containers, callers, err)
			}
		}
	}
	return nil
}

// relist reads the memory after some PLEG seconds on a full node.
func (r *runner) relist(ctx context.Context, s *stand.Stand) error {
	const seconds = 10
	for _, c := range s.Contestants {
		for n := range seconds {
			if err := load.PLEG(ctx, c.Client, n); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	return r.eachMemory(s, func(m *report.Memory, now process.Memory) { m.Node = now.Resident })
}

func (r *runner) eachMemory(s *stand.Stand, note func(*report.Memory, process.Memory)) error {
	for _, c := range s.Contestants {
		if c.Process == nil {
			continue
		}
		now, err := c.Process.Memory()
		if err != nil {
			return err
		}
		if r.memory[c.Name] == nil {
			r.memory[c.Name] = &report.Memory{Contestant: c.Name, Containers: r.largest()}
		}
		note(r.memory[c.Name], now)
	}
	return nil
}

// measure lets all contestants do one workload.
func (r *runner) measure(ctx context.Context, s *stand.Stand, w load.Workload, callers int) error {
	ops := max(w.Ops, 2*callers) // Each caller has to meet the others.
	contestants := s.Doing(w.Name)
	rounds := newRounds(contestants)
	for i := range r.Rounds + 1 {
		for j := range contestants {
			c := contestants[(i+j)%len(contestants)]
			turn, err := r.turn(ctx, c, w, callers, ops)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			if i > 0 { // The round before the first warms up.
				rounds.add(c.Name, turn)
			}
		}
	}
	key := report.Key{Workload: w.Name, Containers: w.Containers, Callers: callers}
	r.run.Results = append(r.run.Results, rounds.results(key)...)
	r.log.WithFields(logrus.Fields{"workload": w.Name, "containers": w.Containers, "callers": callers}).Info("measured")
	return nil
}

// turn is one contestant's part of a round, with what it cost.
func (r *runner) turn(ctx context.Context, c *stand.Contestant, w load.Workload, callers, ops int) (turn, error) {
	before, err := used(c)
	if err != nil {
		return turn{}, err
	}
	peaks := c.Process != nil && w.Name == load.ListContainers && w.Containers == r.largest() && callers > 1
	if peaks {
		if err := c.Process.ResetPeak(); err != nil {
			return turn{}, err
		}
	}
	taken, err := load.Take(ctx, w, c.Client, callers, ops)
	if err != nil {
		return turn{}, err
	}
	after, err := used(c)
	done := turn{Turn: taken, cpu: after.cpu - before.cpu, commits: after.commits - before.commits}
	if err != nil || !peaks {
		return done, err
	}
	now, err := c.Process.Memory()
	r.memory[c.Name].Peak = max(r.memory[c.Name].Peak, now.Peak)
	return done, err
}

// usage is what a process has used so far.
type usage struct {
	cpu     time.Duration
	commits int // to the state file
}

// used is nothing for a contestant without a process.
func used(c *stand.Contestant) (usage, error) {
	if c.Process == nil {
		return usage{}, nil
	}
	cpu, cpuErr := c.Process.CPU()
	commits, err := c.Commits()
	return usage{cpu, commits}, errors.Join(cpuErr, err)
}
