// Package load does what a kubelet does to a CRI socket, and times it.
//
// Every answer is checked as far as that is free: a list has all containers, an
// image that was pulled is there. So a contestant cannot be fast by being wrong.
// All callers of a Client share one connection, as the kubelet's do, and answers
// are decoded as the kubelet does. The processor time of this process is not
// counted anywhere.
package load

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage is the kubelet's limit of an answer.
const maxMessage = 16 << 20

const (
	retryEvery    = 10 * time.Millisecond
	connectWithin = 5 * time.Second
)

// Client is a kubelet's view of one contestant.
type Client struct {
	Options

	conn       *grpc.ClientConn
	runtime    runtimeapi.RuntimeServiceClient
	images     runtimeapi.ImageServiceClient
	sandboxes  int
	containers []string // ids
	pods       atomic.Int64
}

// Options say what a client connects to and what it expects there.
type Options struct {
	Name     string   // unique among the contestants: pods are named after it
	Socket   string   // path
	Handlers []string // that pods are started with, in turn, and that are listed
}

// Dial connects when it is first used. The options are those of the kubelet's
// own client (cri-client, pkg/remote_runtime.go).
func Dial(o Options) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+o.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// Only this differs: whoever is dialled has just been started.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: retryEvery, MaxDelay: retryEvery}, MinConnectTimeout: connectWithin,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s at %s: %w", o.Name, o.Socket, err)
	}
	return &Client{
		Options: o, conn: conn,
		runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Learn lists what is there, to be asked for later, and fails while it is not
// all there: pods of the client's handlers and that many containers.
func (c *Client) Learn(ctx context.Context, containers int) error {
	pods, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, p := range pods.GetItems() {
		if !slices.Contains(c.Handlers, p.GetRuntimeHandler()) {
			return fmt.Errorf("%s lists a pod of handler %q, want one of %q", c.Name, p.GetRuntimeHandler(), c.Handlers)
		}
	}
	list, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	if got := len(list.GetContainers()); got != containers {
		return fmt.Errorf("%s lists %d containers, want %d", c.Name, got, containers)
	}
	c.sandboxes, c.containers = len(pods.GetItems()), c.containers[:0]
	for _, container := range list.GetContainers() {
		c.containers = append(c.containers, container.GetId())
	}
	return nil
}

// container is the id of the n-th container to ask for; they are spread over the
// whole list, and so over all backends.
func (c *Client) container(n int) string {
	const stride = 7919 // A prime: it visits all.
	return c.containers[n*stride%len(c.containers)]
}

// handler is that of the n-th pod.
func (c *Client) handler(n int64) string { return c.Handlers[n%int64(len(c.Handlers))] }

// podName is one that no pod on the same runtime has.
func (c *Client) podName(n int64) string { return c.Name + "-" + strconv.FormatInt(n, 10) }
