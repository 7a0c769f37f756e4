// Program caller calls ListContainers on a CRI socket every 50 ms, from when the
// socket is there until its standard input ends: once on the connection that it
// keeps, as the kubelet does, and once on a new one, as crictl does. A call never
// waits for another one. Each line of the input is the name of what happens from
// then on. At the end it prints, as JSON, what the calls of each of them saw.
//
// It makes no call again, and does not ask for gRPC to wait for a server: what
// fails is counted.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/kind/calls"
)

const (
	every    = 50 * time.Millisecond
	patience = time.Minute // of one call
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "caller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	if len(args) != 1 {
		return errors.New("usage: caller SOCKET")
	}
	stages := read(in)
	if err := await(ctx, args[0]); err != nil {
		return err
	}
	kept, err := dial(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	c := &caller{socket: args[0], kept: kept}
	c.call(ctx, stages)
	c.running.Wait()
	return json.NewEncoder(out).Encode(c.seen)
}

// read sends each line, and ends with them.
func read(in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			lines <- strings.TrimSpace(scanner.Text())
		}
	}()
	return lines
}

// await returns once the socket is there.
func await(ctx context.Context, socket string) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
}

type caller struct {
	socket  string
	kept    *grpc.ClientConn
	running sync.WaitGroup

	mu   sync.Mutex
	seen []*calls.Seen
}

// call begins two calls at each tick until the stages end.
func (c *caller) call(ctx context.Context, stages <-chan string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	c.begin("install")
	for {
		select {
		case <-ctx.Done():
			return
		case stage, more := <-stages:
			if !more {
				return
			}
			c.begin(stage)
		case <-tick.C:
			seen := c.seen[len(c.seen)-1]
			c.running.Go(func() { c.count(seen, "kept", func() error { return list(ctx, c.kept) }) })
			c.running.Go(func() { c.count(seen, "new", func() error { return c.listAnew(ctx) }) })
		}
	}
}

// begin is called by one goroutine alone, which is also the only one that reads
// the slice itself while calls run.
func (c *caller) begin(stage string) { c.seen = append(c.seen, &calls.Seen{Stage: stage}) }

func (c *caller) listAnew(ctx context.Context) error {
	conn, err := dial(c.socket)
	if err != nil {
		return err
	}
	return errors.Join(list(ctx, conn), conn.Close())
}

func list(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := runtimeapi.NewRuntimeServiceClient(conn).ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	return err
}

func (c *caller) count(seen *calls.Seen, connection string, do func() error) {
	began := time.Now()
	err := do()
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	seen.Calls++
	seen.Longest = max(seen.Longest, took)
	if err != nil {
		seen.Failed = append(seen.Failed, calls.Failure{Connection: connection, Began: began, Took: took, Error: err.Error()})
	}
}
