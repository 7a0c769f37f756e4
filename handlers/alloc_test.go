package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// measured is a proxy in a process of its own, so that what it allocates can be
// told apart from what the test and the runtimes behind it do.
type measured struct {
	t     *testing.T
	pid   int
	admin *http.Client
	conn  *grpc.ClientConn
}

// startMeasured runs the built program in front of two backends, each with half
// of the pods, of five containers each.
func startMeasured(t *testing.T, program string, pods int) *measured {
	t.Helper()
	dir, err := os.MkdirTemp("", "al") // t.TempDir is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	lines := []string{fmt.Sprintf("version = 1\ndefault_handler = \"alpha\"\nserver.listen = %q\nadmin.listen = %q\nstate.dir = %q\n",
		dir+"/s", dir+"/a", dir+"/state")}
	for _, name := range []string{"alpha", "beta"} {
		backend := fakeruntime.Start(t, fakeruntime.Options{Name: name, NoJournal: true})
		backend.FillHandler(name, pods/2, 5)
		lines = append(lines, fmt.Sprintf("backends.%[1]s.endpoint = %[2]q\nbackends.%[1]s.list_timeout = \"30s\"\nhandlers.%[1]s.backend = %[1]q\n", name, backend.Endpoint()))
	}
	config := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(config, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &measured{t: t, pid: startProgram(t, program, config), admin: adminClient(t, dir+"/a")}
	if m.conn, err = rawcri.Dial(dir + "/s"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	m.list("ListContainers", grpc.WaitForReady(true))
	return m
}

func startProgram(t *testing.T, program, config string) (pid int) {
	t.Helper()
	log := &strings.Builder{}
	cmd := exec.Command(program, "run", "--config", config) //nolint:noctx // The clean-up ends it; the test's context would kill it.
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("cri-proxy: %v\n%s", err, log)
		}
	})
	return cmd.Process.Pid
}

func adminClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// list calls a list method and returns the size of the answer, undecoded.
func (m *measured) list(method string, o ...grpc.CallOption) int {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	answer, err := rawcri.Fetch(ctx, m.conn, "/runtime.v1.RuntimeService/"+method, rawcri.NewFrame(nil), o...)
	if err != nil {
		m.t.Fatal(err)
	}
	defer answer.Free()
	return answer.Len()
}

// allocations reads how many objects the proxy has allocated so far. The heap
// profile's count is exact; that of /metrics lags behind by what each processor
// has not yet handed in.
func (m *measured) allocations() float64 {
	m.t.Helper()
	request, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, "http://admin/debug/pprof/heap?debug=1", http.NoBody)
	if err != nil {
		m.t.Fatal(err)
	}
	response, err := m.admin.Do(request)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		value, ok := strings.CutPrefix(lines.Text(), "# Mallocs = ")
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		return n
	}
	m.t.Fatal("the heap profile has no count of allocations")
	return 0
}

// perCall returns the allocations of one call, those of reading them
// taken out, and the size of its answer. It is the least of several tries: what
// the collector or a timer adds is not in each of them, what a list costs is.
func (m *measured) perCall(method string) (allocations float64, size int) {
	m.t.Helper()
	const tries, calls = 3, 4
	allocations = math.Inf(1)
	for range tries {
		before := m.allocations()
		reading := m.allocations() - before
		for range calls {
			size = m.list(method)
		}
		allocations = min(allocations, (m.allocations()-before-2*reading)/calls)
	}
	return allocations, size
}

func buildProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cri-proxy")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/cri-proxy")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build cri-proxy: %v\n%s", err, output)
	}
	return program
}

// writes reads how often the proxy has written so far.
func (m *measured) writes() float64 {
	m.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", m.pid))
	if err != nil {
		m.t.Skipf("left out: Linux counts the system calls: %v", err)
	}
	_, after, _ := strings.Cut(string(content), "syscw: ")
	line, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseFloat(line, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// TestListsAreWrittenAtOnce holds that the list of a hundred containers goes to
// the caller in one system call, beside the four of what else a call over two
// backends has to write.
func TestListsAreWrittenAtOnce(t *testing.T) {
	t.Parallel()
	const pods, calls, most = 20, 200, 6
	m := startMeasured(t, buildProgram(t), pods)
	before := m.writes()
	for range calls {
		m.list("ListContainers")
	}
	perCall := (m.writes() - before) / calls
	t.Logf("%.2f writes for each call", perCall)
	if perCall > most {
		t.Errorf("a list of 100 containers takes %.2f writes, want at most %d", perCall, most)
	}
}

// TestListsAllocateNothingPerContainer holds the promise that a list is never
// decoded on its way through the proxy, however many backends it is made of.
func TestListsAllocateNothingPerContainer(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	const (
		few, many = 20, 1000 // pods; five times as many containers
		// What the buffers of a message of five megabytes may cost more than those of
		// a small one. One object for each pod would be 980, for each container 4,900.
		buffers = 150
	)
	small, large := startMeasured(t, program, few), startMeasured(t, program, many)
	for _, method := range []string{"ListContainers", "ListPodSandbox"} {
		a, smallSize := small.perCall(method)
		b, largeSize := large.perCall(method)
		t.Logf("%s: %.0f allocations for %d bytes, %.0f for %d bytes", method, a, smallSize, b, largeSize)
		if largeSize < smallSize*many/few*9/10 {
			t.Errorf("%s: %d pods are %d bytes, %d are %d: the list is not whole", method, few, smallSize, many, largeSize)
		}
		if b-a > buffers {
			t.Errorf("%s: %d pods cost %.0f allocations, %d cost %.0f: something is made for every item", method, few, a, many, b)
		}
	}
}
