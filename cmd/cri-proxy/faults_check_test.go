package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// objects lists all sandboxes and containers, unary or streamed, within callTime.
func (n *faultNode) objects(streamed bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), callTime)
	defer cancel()
	return objectsOf(ctx, n.runtime, streamed)
}

func objectsOf(ctx context.Context, client runtimeapi.RuntimeServiceClient, streamed bool) ([]string, error) {
	sandboxes, containers := unarySandboxes, unaryContainers
	if streamed {
		sandboxes, containers = streamedSandboxes, streamedContainers
	}
	ids, err := sandboxes(ctx, client)
	if err != nil {
		return nil, err
	}
	more, err := containers(ctx, client)
	return sorted(append(ids, more...)...), err
}

func unarySandboxes(ctx context.Context, client runtimeapi.RuntimeServiceClient) (ids []string, err error) {
	list, err := client.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	for _, s := range list.GetItems() {
		ids = append(ids, s.GetId())
	}
	return ids, err
}

func unaryContainers(ctx context.Context, client runtimeapi.RuntimeServiceClient) (ids []string, err error) {
	list, err := client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	for _, c := range list.GetContainers() {
		ids = append(ids, c.GetId())
	}
	return ids, err
}

func streamedSandboxes(ctx context.Context, client runtimeapi.RuntimeServiceClient) (ids []string, err error) {
	up, err := client.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
	for err == nil {
		var part *runtimeapi.StreamPodSandboxesResponse
		part, err = up.Recv()
		for _, s := range part.GetPodSandboxes() {
			ids = append(ids, s.GetId())
		}
	}
	return ids, goodEnd(err)
}

func streamedContainers(ctx context.Context, client runtimeapi.RuntimeServiceClient) (ids []string, err error) {
	up, err := client.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
	for err == nil {
		var part *runtimeapi.StreamContainersResponse
		part, err = up.Recv()
		for _, c := range part.GetContainers() {
			ids = append(ids, c.GetId())
		}
	}
	return ids, goodEnd(err)
}

func goodEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// check is what must hold when a fault is over: nothing was sent to the wrong
// backend, and the proxy knows and lists what there is, neither more nor less.
func (n *faultNode) check() {
	n.t.Helper()
	n.heal()
	n.byID() // An object whose create was not answered is learnt when it is asked for.
	for _, r := range n.fakes() {
		n.checkJournal(r)
	}
	n.truth()
	problem := ""
	defer func() {
		if problem != "" {
			n.t.Log(problem)
		}
	}()
	eventually(n.t, "the index is what the backends have", func() bool { problem = n.indexProblem(); return problem == "" })
	n.before = n.truth()
	exists := map[string]bool{}
	for _, id := range n.before {
		exists[id] = true
	}
	n.lists()
	for _, streamed := range []bool{false, true} {
		ids, err := n.objects(streamed)
		if err != nil {
			n.t.Errorf("all is healed, and a list fails: %v", err)
		}
		for _, id := range ids {
			if n.removed[id] || !exists[id] {
				n.t.Errorf("%s is gone, and is listed", id)
			}
		}
	}
}

// indexProblem compares the proxy's index with what the fakes have.
func (n *faultNode) indexProblem() string {
	total := 0
	for _, r := range n.fakes() {
		name := n.names[r].backend
		for _, s := range r.Sandboxes() {
			if owner, ok := n.daemon.index.SandboxOwner([]byte(s.GetId())); !ok || owner != name {
				return fmt.Sprintf("sandbox %s is on %s, the index says %q", s.GetId(), name, owner)
			}
		}
		for _, c := range r.Containers() {
			if owner, ok := n.daemon.index.ContainerOwner([]byte(c.GetId())); !ok || owner != name {
				return fmt.Sprintf("container %s is on %s, the index says %q", c.GetId(), name, owner)
			}
		}
		total += len(idsOf(r))
	}
	if s, c := n.daemon.index.Count(); s+c != total {
		return fmt.Sprintf("the index has %d objects, the backends %d", s+c, total)
	}
	return ""
}

// checkJournal looks through all that a backend was ever asked: calls by id are
// for its own objects, and each pod came at most once.
func (n *faultNode) checkJournal(r *fakeruntime.Runtime) {
	n.t.Helper()
	ran := map[string]int{}
	for _, call := range r.Journal() {
		id := ""
		switch q := call.Request.(type) {
		case *runtimeapi.RunPodSandboxRequest:
			name := q.GetConfig().GetMetadata().GetName()
			if ran[name]++; ran[name] > 1 {
				n.t.Errorf("%s was created twice", name)
			}
			if q.GetRuntimeHandler() != n.names[r].handler {
				n.t.Errorf("%s was created on the wrong backend", name)
			}
		case interface{ GetPodSandboxId() string }:
			id = q.GetPodSandboxId()
		case interface{ GetContainerId() string }:
			id = q.GetContainerId()
		}
		if owner := n.owner[id]; id != "" && owner != nil && owner != r {
			n.t.Errorf("%s of %s reached a backend that is not its owner", call.Short(), id)
		}
	}
}

// resources are what must not grow in the process.
type resources struct{ goroutines, descriptors int }

func usage(t *testing.T) resources {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return resources{runtime.NumGoroutine(), len(fds)}
}

// wantUsage waits until the process has no more than it had.
func wantUsage(t *testing.T, before resources) {
	t.Helper()
	eventually(t, fmt.Sprintf("no more than %+v", before), func() bool {
		now := usage(t)
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors
	})
}

// record adds a row to the table that "make faults" writes into
// docs/faults.md; without it nobody asks for one.
func record(t *testing.T, fault string, saw func() string, invariants string) {
	t.Helper()
	path := os.Getenv("FAULTS_TABLE")
	if path == "" {
		return
	}
	t.Cleanup(func() {
		ok := map[bool]string{true: "**FAILED**", false: "yes"}[t.Failed()]
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		row := strings.Join([]string{"| fakes", fault, saw(), invariants, ok + " |\n"}, " | ")
		_, err = f.WriteString(row)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
	})
}
