package real_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// mostGrowth is what the memory of a process may differ between two looks at it
// without anything being kept: a garbage collector gives back what it wants.
const mostGrowth = 8 << 20

// footprint is what must not grow in the daemon.
type footprint struct {
	resident                int64 // bytes
	descriptors, goroutines int
}

func (f footprint) String() string {
	return fmt.Sprintf("%.1f MiB, %d descriptors, %d goroutines", float64(f.resident)/(1<<20), f.descriptors, f.goroutines)
}

// TestGrowth looks at the daemon itself, by its process id: pods come and go on
// two containerds, callers give up, and the second containerd hangs, ends and is
// killed, again and again. Memory, descriptors and goroutines stay as they were
// after the first times.
func TestGrowth(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	if err := n.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	n.alpha, n.beta = startContainerd(ctx, t, n, "stays"), startContainerd(ctx, t, n, "goes")
	proxy := startProxy(ctx, t, n.Rig, "growth", n.alpha, n.beta)
	cycles := 6
	if os.Getenv("FAULTS_TABLE") != "" {
		cycles = 24
	}
	pid, err := pidOf(proxy.Config)
	if err != nil {
		t.Fatal(err)
	}
	g := &growth{node: n, proxy: proxy, pid: pid, client: clientOf(t, proxy)}
	for i := range cycles / 2 {
		g.cycle(ctx, t, i)
	}
	before := g.settled(ctx, t, footprint{})
	for i := range cycles {
		g.cycle(ctx, t, i)
	}
	after := g.settled(ctx, t, before)
	t.Logf("%s → %s", before, after)
	if g.listed == 0 {
		t.Error("no list succeeded while a containerd was away, though the last one is known")
	}
	if after.resident > before.resident+mostGrowth || after.descriptors > before.descriptors || after.goroutines > before.goroutines {
		t.Errorf("after %d cycles: %s; before them: %s", cycles, after, before)
	}
	recordReal(t, fmt.Sprintf("%d pods come and go while a containerd hangs, ends and is killed, %d times in turn", 2*cycles, cycles),
		fmt.Sprintf("the daemon's process: %s → %s", before, after), "its resident memory (± 8 MiB), descriptors and goroutines do not grow")
}

// growth is one daemon, and what is needed to make it work.
type growth struct {
	*node

	proxy  *rig.Proxy
	pid    int
	client runtimeapi.RuntimeServiceClient
	listed int // How many lists succeeded while a fault lasted.
}

func clientOf(t *testing.T, proxy *rig.Proxy) runtimeapi.RuntimeServiceClient {
	t.Helper()
	conn, err := rig.Dial(proxy.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// pidOf finds the process whose command line ends with an argument.
func pidOf(argument string) (int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(string(content), "\x00"+argument+"\x00") {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("no process has the argument %s", argument)
}

// cycle runs a pod on each containerd, lets a fault come to the second while
// callers go on, and removes the pods.
func (g *growth) cycle(ctx context.Context, t *testing.T, i int) {
	t.Helper()
	pods := []string{g.pod(ctx, t, "runc"), g.pod(ctx, t, second)}
	faults := []func(context.Context) error{g.hang, g.stop, g.kill}
	if err := faults[i%len(faults)](ctx); err != nil {
		t.Fatal(err)
	}
	// A short id is answered when all containerds are listed again.
	waitFor(ctx, t, func() error {
		_, err := g.client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: short(pods[1])})
		return err
	})
	for _, pod := range pods {
		if _, err := g.client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
			t.Fatal(err)
		}
	}
}

func (g *growth) pod(ctx context.Context, t *testing.T, handler string) string {
	t.Helper()
	ran, err := g.client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: newPod(t, g.node, "growth"), RuntimeHandler: handler})
	if err != nil {
		t.Fatal(err)
	}
	return ran.GetPodSandboxId()
}

// hang stops the second containerd's process for as long as callers go on.
func (g *growth) hang(ctx context.Context) error {
	pid, err := pidOf(filepath.Join(filepath.Dir(g.beta.Socket), "config.toml"))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	g.calls(ctx)
	return syscall.Kill(pid, syscall.SIGCONT)
}

func (g *growth) stop(ctx context.Context) error {
	err := g.beta.Stop()
	g.calls(ctx)
	return errors.Join(err, g.beta.Start(ctx))
}

func (g *growth) kill(ctx context.Context) error {
	err := g.beta.Kill()
	g.calls(ctx)
	return errors.Join(err, g.beta.Start(ctx))
}

// calls are lists, event streams and calls for both containerds, of callers that
// give up early. What they are answered is for other tests to judge.
func (g *growth) calls(ctx context.Context) {
	for range 30 {
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		events, err := g.client.GetContainerEvents(limited, &runtimeapi.GetEventsRequest{})
		list, listErr := g.client.ListPodSandbox(limited, &runtimeapi.ListPodSandboxRequest{})
		if listErr == nil {
			g.listed++
		}
		for _, pod := range list.GetItems() {
			_, statusErr := g.client.PodSandboxStatus(limited, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.GetId()})
			err = errors.Join(err, statusErr)
		}
		for err == nil {
			_, err = events.Recv()
		}
		cancel()
	}
}

// settled looks until there are no more descriptors and goroutines than wanted,
// or half a minute has gone by; of a zero footprint, until they stay the same.
func (g *growth) settled(ctx context.Context, t *testing.T, want footprint) footprint {
	t.Helper()
	var last footprint
	deadline, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	// The last failure tells all that the caller needs, in its own words.
	err := rig.Poll(deadline, func() error {
		now, err := g.footprint(deadline)
		if err != nil {
			return err
		}
		same := now.descriptors == last.descriptors && now.goroutines == last.goroutines
		last = now
		if fits := now.descriptors <= want.descriptors && now.goroutines <= want.goroutines; fits || (want == footprint{} && same) {
			return nil
		}
		return errors.New(now.String())
	})
	if err != nil {
		t.Logf("not settled: %v", err)
	}
	return last
}

// footprint is the daemon's, after a garbage collection.
func (g *growth) footprint(ctx context.Context) (f footprint, err error) {
	if _, err = g.ask(ctx, "/debug/pprof/heap?gc=1"); err != nil {
		return f, err
	}
	profile, err := g.ask(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return f, err
	}
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &f.goroutines); err != nil {
		return f, fmt.Errorf("count the goroutines: %w", err)
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid))
	if err != nil {
		return f, err
	}
	f.descriptors = len(descriptors)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	if err != nil {
		return f, err
	}
	_, resident, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscanf(resident, "%d kB", &f.resident); err != nil {
		return f, fmt.Errorf("read the resident memory: %w", err)
	}
	f.resident <<= 10
	return f, nil
}

// ask gets a page of the daemon's admin socket, on a connection that is closed
// when it was read.
func (g *growth) ask(ctx context.Context, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.proxy.Admin)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cri-proxy"+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(answer.Body)
	return string(body), errors.Join(err, answer.Body.Close())
}
