package main

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// samples are the values of a scrape, by name and labels as they are written.
type samples map[string]float64

// scrape reads the metrics from an admin socket.
func scrape(t *testing.T, socket string) samples {
	t.Helper()
	text, err := admin.Get(t.Context(), socket, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	s := samples{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		if s[line[:end]], err = strconv.ParseFloat(line[end+1:], 64); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// of returns the samples of one name.
func (s samples) of(name string) samples {
	found := samples{}
	for key, value := range s {
		if key == name || strings.HasPrefix(key, name+"{") {
			found[strings.TrimPrefix(key, name)] = value
		}
	}
	return found
}

func (p *proxy) scrape() samples {
	p.t.Helper()
	return scrape(p.t, filepath.Join(p.dir, "a"))
}

func (s samples) sum() (total float64) {
	for _, n := range s {
		total += n
	}
	return total
}

// callEveryWay makes nine calls, one for each way that a call can take.
func (p *proxy) callEveryWay(container string) {
	p.t.Helper()
	call := func(code codes.Code, ask func(ctx context.Context) error) {
		p.t.Helper()
		if err := ask(p.t.Context()); status.Code(err) != code {
			p.t.Errorf("answered %v, want %s", err, code)
		}
	}
	call(codes.OK, func(ctx context.Context) error { // To the default backend.
		_, err := p.runtime.Version(ctx, &runtimeapi.VersionRequest{})
		return err
	})
	call(codes.OK, func(ctx context.Context) error { // Passed through.
		_, err := p.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: container})
		return err
	})
	call(codes.NotFound, func(ctx context.Context) error {
		_, err := p.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: strings.Repeat("ab", 32)})
		return err
	})
	call(codes.InvalidArgument, func(ctx context.Context) error { // Refused here.
		_, err := p.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("x"), RuntimeHandler: "none"})
		return err
	})
	call(codes.OK, func(ctx context.Context) error { // Merged.
		_, err := p.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
		return err
	})
	call(codes.OK, func(ctx context.Context) error { // Merged, and a stream.
		up, err := p.runtime.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
		for err == nil {
			_, err = up.Recv()
		}
		if err == io.EOF { //nolint:errorlint // Recv returns the bare sentinel.
			return nil
		}
		return err
	})
	for _, method := range []string{"/" + rawcri.RuntimeService + "/Made", "/" + rawcri.ImageService + "/Up", "/some.Service/Version"} {
		call(codes.Unimplemented, func(ctx context.Context) error {
			return p.conn.Invoke(ctx, method, rawcri.NewFrame(nil), &rawcri.Frame{})
		})
	}
}

// TestRequestsAreCounted: each call once, whatever way it takes.
func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	sandbox := p.run("b", "isolated")        // Typed.
	container := p.create(sandbox, "b", "c") // Typed, and learnt.
	p.callEveryWay(container)
	if err := p.daemon.ready(t.Context()); err != nil { // No CRI call, and not counted.
		t.Error(err)
	}
	var got samples
	eventually(t, "all calls are counted", func() bool {
		got = p.scrape()
		return got.of("cri_proxy_requests_total").sum() >= 11
	})
	want := samples{
		`{backend="beta",code="OK",method="RunPodSandbox"}`:          1,
		`{backend="",code="InvalidArgument",method="RunPodSandbox"}`: 1,
		`{backend="beta",code="OK",method="CreateContainer"}`:        1,
		`{backend="alpha",code="OK",method="Version"}`:               1,
		`{backend="beta",code="OK",method="ContainerStatus"}`:        1,
		`{backend="alpha",code="NotFound",method="ContainerStatus"}`: 1,
		`{backend="",code="OK",method="ListContainers"}`:             1,
		`{backend="",code="OK",method="StreamContainers"}`:           1,
		`{backend="",code="Unimplemented",method="other"}`:           3,
	}
	if diff := cmp.Diff(want, got.of("cri_proxy_requests_total")); diff != "" {
		t.Errorf("cri_proxy_requests_total (-want +got):\n%s", diff)
	}
	if observed := got.of("cri_proxy_request_duration_seconds_count").sum(); observed != 11 {
		t.Errorf("%v durations of 11 calls", observed)
	}
}

// TestMetricNames: dashboards and alerts know these names and labels.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	if _, err := p.runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}); err != nil {
		t.Fatal(err)
	}
	var names []string
	eventually(t, "the call is counted", func() bool {
		found := map[string]bool{}
		for key := range p.scrape() {
			if name, _, _ := strings.Cut(key, "{"); strings.HasPrefix(name, "cri_proxy_") {
				found[name] = true
			}
		}
		names = slices.Sorted(maps.Keys(found))
		return found["cri_proxy_list_bytes_count"]
	})
	want := []string{
		"cri_proxy_backend_up", "cri_proxy_config_last_reload_success_timestamp_seconds", "cri_proxy_config_last_reload_successful",
		"cri_proxy_journal_oldest_seconds", "cri_proxy_journal_records",
		"cri_proxy_list_bytes_bucket", "cri_proxy_list_bytes_count", "cri_proxy_list_bytes_sum",
		"cri_proxy_pulled_bytes_total", "cri_proxy_pulls_total",
		"cri_proxy_request_duration_seconds_bucket", "cri_proxy_request_duration_seconds_count", "cri_proxy_request_duration_seconds_sum",
		"cri_proxy_requests_in_flight", "cri_proxy_requests_total", "cri_proxy_routes", "cri_proxy_state_reset_total",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	s := p.scrape()
	if diff := cmp.Diff(samples{`{backend="",method="ListContainers"}`: 1}, s.of("cri_proxy_request_duration_seconds_count")); diff != "" {
		t.Errorf("durations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(samples{`{method="ListContainers"}`: 1}, s.of("cri_proxy_list_bytes_count")); diff != "" {
		t.Errorf("list bytes (-want +got):\n%s", diff)
	}
}

// TestStateMetrics: what the backends and routes are at the moment.
func TestStateMetrics(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.AddImage("app", nil)
	p.run("a", "runc")
	p.create(p.run("b", "isolated"), "b", "c")
	check := func(name string, want samples) {
		t.Helper()
		if diff := cmp.Diff(want, p.scrape().of(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("cri_proxy_backend_up", samples{`{backend="alpha"}`: 1, `{backend="beta"}`: 1})
	check("cri_proxy_routes", samples{`{kind="sandbox"}`: 2, `{kind="container"}`: 1})
	check("cri_proxy_state_reset_total", samples{"": 0})
	beta.Stop()
	eventually(t, "beta is away", func() bool { return p.scrape()[`cri_proxy_backend_up{backend="beta"}`] == 0 })
	check("cri_proxy_backend_up", samples{`{backend="alpha"}`: 1, `{backend="beta"}`: 0})
	beta.Restart()
	eventually(t, "beta is back", func() bool { return p.scrape()[`cri_proxy_backend_up{backend="beta"}`] == 1 })
}

// TestInFlight: a call is seen while it is served.
func TestInFlight(t *testing.T) {
	t.Parallel()
	p, alpha, _ := twoBackends(t)
	release := make(chan struct{})
	alpha.Inject("Version", fakeruntime.Fault{Until: release, Times: 1})
	done := make(chan error, 1)
	go func() {
		_, err := p.runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
		done <- err
	}()
	if _, err := alpha.WaitCalls(t.Context(), "Version", 2); err != nil { // The first was the proxy's own, at start.
		t.Fatal(err)
	}
	if diff := cmp.Diff(samples{`{method="Version"}`: 1}, p.scrape().of("cri_proxy_requests_in_flight")); diff != "" {
		t.Errorf("while it hangs (-want +got):\n%s", diff)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "it has ended", func() bool { return p.scrape()[`cri_proxy_requests_in_flight{method="Version"}`] == 0 })
}

// TestListBytes: what is measured is what the caller gets.
func TestListBytes(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.Fill(2, 2)
	beta.Fill(3, 1)
	for _, name := range []string{"ListPodSandbox", "ListContainers", "ListContainerStats", "ListPodSandboxStats", "ListPodSandboxMetrics"} {
		answer := &rawcri.Frame{}
		if err := p.conn.Invoke(t.Context(), "/"+rawcri.RuntimeService+"/"+name, rawcri.NewFrame(nil), answer); err != nil {
			t.Fatal(err)
		}
		size := float64(answer.Len())
		answer.Free()
		eventually(t, name+" is counted", func() bool { return p.scrape()[`cri_proxy_list_bytes_count{method="`+name+`"}`] == 1 })
		if got := p.scrape()[`cri_proxy_list_bytes_sum{method="`+name+`"}`]; size == 0 || got != size {
			t.Errorf("%s has %v bytes, counted are %v", name, size, got)
		}
	}
}

// TestReadiness: the default backend decides; another one being away does not
// keep a kubelet from starting.
func TestReadiness(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	ask := func(path string) error {
		_, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), path)
		return err
	}
	away := func(name string) bool { return !p.daemon.backends().Get(name).Up() }
	beta.Stop()
	eventually(t, "beta is away", func() bool { return away("beta") })
	if err := ask("/readyz"); err != nil {
		t.Errorf("beta is away: %v", err)
	}
	alpha.Stop()
	eventually(t, "alpha is away", func() bool { return away("alpha") })
	err := ask("/readyz")
	if err == nil || !strings.Contains(err.Error(), `503 Service Unavailable: not ready: backend "alpha"`) {
		t.Errorf("alpha is away: %v, want a 503 that names it", err)
	}
	if err := ask("/livez"); err != nil {
		t.Errorf("alpha is away: %v", err)
	}
	alpha.Restart()
	eventually(t, "it is ready again", func() bool { return ask("/readyz") == nil })
}

// TestSocketModes: whoever may write to these sockets owns the node.
func TestSocketModes(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	for name, want := range map[string]os.FileMode{"s": 0o660, "a": 0o600} {
		if info, err := os.Stat(filepath.Join(p.dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("socket %s has %v, %v, want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

// TestHealthService: gRPC's own health check, for probes on the CRI socket.
func TestHealthService(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	if err := p.daemon.alive(t.Context()); err != nil {
		t.Error(err)
	}
	up, err := p.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/"+healthService+"/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := up.SendMsg(rawcri.NewFrame(nil)); err != nil {
		t.Fatal(err)
	}
	if err := up.RecvMsg(&rawcri.Frame{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("Watch: %v, want Unimplemented", err)
	}
}
