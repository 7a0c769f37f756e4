package stand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/cri-proxy/cri-proxy/test/bench/internal/load"
	"github.com/cri-proxy/cri-proxy/test/bench/internal/process"
)

// proxy configures a cri-proxy and starts it. rest are the tables of its
// backends and handlers; all else is as shipped.
func (s *Stand) proxy(name, defaultHandler, rest string) func(context.Context, string) (*process.Process, error) {
	return func(ctx context.Context, socket string) (*process.Process, error) {
		config := filepath.Join(s.dir, name+".toml")
		content := fmt.Sprintf(`version = 1
default_handler = %q
server.listen = %q
admin.listen = %q
state.dir = %q
`, defaultHandler, socket, filepath.Join(s.dir, name+".admin"), filepath.Join(s.dir, name+".state"))
		if err := os.WriteFile(config, []byte(content+rest), 0o600); err != nil {
			return nil, err
		}
		return s.start(ctx, name, s.Proxy, "run", "--config", config)
	}
}

func (s *Stand) one() string {
	return fmt.Sprintf("backends.whole.endpoint = %q\nhandlers.runc.backend = \"whole\"\n", s.socket("whole"))
}

func (s *Stand) two() string {
	return fmt.Sprintf("backends.half1.endpoint = %q\nbackends.half2.endpoint = %q\n", s.socket("half1"), s.socket("half2")) +
		"handlers.runc.backend = \"half1\"\nhandlers.isolated.backend = \"half2\"\n"
}

func (s *Stand) renamed() string {
	return fmt.Sprintf("backends.whole.endpoint = %q\n", s.socket("whole")) +
		"handlers.quick.backend = \"whole\"\nhandlers.quick.runtime = \"runc\"\n"
}

// hooked is one with a PostStart hook that takes no time of its own.
func (s *Stand) hooked() string {
	return s.one() + "[[handlers.runc.hooks.post_start]]\nname = \"register\"\nexec = { command = [\"true\"] }\n"
}

// stateFile is that of a cri-proxy with a socket.
func stateFile(socket string) string {
	return filepath.Join(strings.TrimSuffix(socket, ".sock")+".state", "state.db")
}

// Commits counts what was written to the state file so far. It reads a copy,
// since the file is locked.
func (c *Contestant) Commits() (commits int, err error) {
	content, err := os.ReadFile(c.state)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	file := c.state + ".copy"
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return 0, err
	}
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("read the state of %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *bolt.Tx) error {
		commits = tx.ID()
		return nil
	})
	return commits, err
}

// await returns a client once the node is listed in full at its socket. p
// is who listens there, nil for a process that was waited for before.
func await(ctx context.Context, p *process.Process, o load.Options, containers int) (*load.Client, error) {
	client, err := load.Dial(o)
	if err != nil {
		return nil, err
	}
	learn := func(ctx context.Context) error { return client.Learn(ctx, containers) }
	if p == nil {
		err = learn(ctx)
	} else {
		err = p.WaitReady(ctx, learn)
	}
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// clientName is the contestant's name as a part of pods' names.
func clientName(contestant string) string { return strings.ReplaceAll(contestant, " ", "-") }
