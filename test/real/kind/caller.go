package kind

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cri-proxy/cri-proxy/test/real/kind/calls"
)

// Caller is the program caller at work in a node.
type Caller struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output bytes.Buffer
}

// StartCaller starts it for a socket of the node, which need not be there yet.
func (c *Cluster) StartCaller(ctx context.Context, node, socket string) (*Caller, error) {
	program := c.file("caller")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./kind/caller")
	build.Dir = filepath.Join(c.root, "test", "real")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if _, err := output(build, nil); err != nil {
		return nil, err
	}
	if _, err := c.Run(ctx, nil, "cp", program, node+":/root/caller"); err != nil {
		return nil, err
	}
	caller := &Caller{cmd: c.Command(ctx, "docker", "exec", "--interactive", node, "/root/caller", socket)}
	var err error
	if caller.input, err = caller.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	caller.cmd.Stdout, caller.cmd.Stderr = &caller.output, &caller.output
	return caller, caller.cmd.Start()
}

// Stage names what happens from now on.
func (c *Caller) Stage(name string) error {
	_, err := fmt.Fprintln(c.input, name)
	return err
}

// End waits for the calls in flight, and returns what all of them saw.
func (c *Caller) End() (seen []calls.Seen, err error) {
	err = errors.Join(c.input.Close(), c.cmd.Wait())
	if err == nil {
		err = json.Unmarshal(c.output.Bytes(), &seen)
	}
	if err != nil {
		err = fmt.Errorf("the caller: %w: %s", err, c.output.String())
	}
	return seen, err
}
