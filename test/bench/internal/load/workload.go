package load

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Workload is one kind of operation on a node of one size.
type Workload struct {
	Name       string
	Containers int // on the node
	Ops        int // of one contestant in one round

	do func(ctx context.Context, c *Client, n int) (time.Duration, error) // the n-th operation
}

// Names of the workloads.
const (
	Version         = "Version"
	ContainerStatus = "ContainerStatus"
	ListContainers  = "ListContainers"
	ListPodSandbox  = "ListPodSandbox"
	PLEGSecond      = "PLEG second"
	PodStart        = "pod start"
)

// Lists are the two lists of a node of that many containers.
func Lists(containers int) []Workload {
	return []Workload{
		{Name: ListContainers, Containers: containers, Ops: opsOf(containers), do: timed(listContainers)},
		{Name: ListPodSandbox, Containers: containers, Ops: opsOf(containers), do: timed(listPodSandbox)},
	}
}

// opsOf keeps a turn of a list well below a second, whatever the list's size.
func opsOf(containers int) int { return max(8, 20_000/(containers+100)) }

// Others are the workloads that do not depend on the node's size.
func Others(containers int) []Workload {
	return []Workload{
		{Name: Version, Containers: containers, Ops: 600, do: timed(version)},
		{Name: ContainerStatus, Containers: containers, Ops: 600, do: timed(containerStatus)},
		{Name: PLEGSecond, Containers: containers, Ops: 20, do: timed(PLEG)},
		{Name: PodStart, Containers: containers, Ops: 64, do: podStart},
	}
}

func timed(do func(context.Context, *Client, int) error) func(context.Context, *Client, int) (time.Duration, error) {
	return func(ctx context.Context, c *Client, n int) (time.Duration, error) {
		begin := time.Now()
		err := do(ctx, c, n)
		return time.Since(begin), err
	}
}

func version(ctx context.Context, c *Client, _ int) error {
	_, err := c.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	return err
}

func containerStatus(ctx context.Context, c *Client, n int) error {
	id := c.container(n)
	resp, err := c.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return err
	}
	if got := resp.GetStatus().GetId(); got != id {
		return fmt.Errorf("%s answers the status of container %s with that of %s", c.Name, id, got)
	}
	return nil
}

func listContainers(ctx context.Context, c *Client, _ int) error {
	resp, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	if got := len(resp.GetContainers()); got != len(c.containers) {
		return fmt.Errorf("%s lists %d containers, want %d", c.Name, got, len(c.containers))
	}
	return nil
}

func listPodSandbox(ctx context.Context, c *Client, _ int) error {
	resp, err := c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	if got := len(resp.GetItems()); got != c.sandboxes {
		return fmt.Errorf("%s lists %d pods, want %d", c.Name, got, c.sandboxes)
	}
	return nil
}

// PLEG is what the kubelet asks every second on a node where little happens:
// both lists, and the status of seven containers. n chooses the containers.
func PLEG(ctx context.Context, c *Client, n int) error {
	const statuses = 7
	if err := listPodSandbox(ctx, c, n); err != nil {
		return err
	}
	if err := listContainers(ctx, c, n); err != nil {
		return err
	}
	for i := range statuses {
		if err := containerStatus(ctx, c, n*statuses+i); err != nil {
			return err
		}
	}
	return nil
}
