package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// servicesAt has one Service in the namespace of the tests' pods, and one elsewhere.
func servicesAt(ip string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: my-db}
spec: {clusterIP: %s, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: cache, namespace: shared}
spec: {clusterIP: 10.9.0.1, ports: [{port: 11211}]}
`, ip)
}

// dbVariables are those of the Service my-db.
func dbVariables(ip string) []string {
	return []string{
		"MY_DB_SERVICE_HOST=" + ip, "MY_DB_SERVICE_PORT=5432", "MY_DB_PORT=tcp://" + ip + ":5432",
		"MY_DB_PORT_5432_TCP=tcp://" + ip + ":5432", "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_ADDR=" + ip,
	}
}

// withServices runs the daemon with a source of Services, in front of one backend
// with the handlers runc and skip, which add variables, and plain, which does not.
func withServices(t *testing.T, source string) (*proxy, *fakeruntime.Runtime) {
	t.Helper()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc", "skip", "plain"}})
	alpha.AddImage("app", nil)
	return startProxy(t, `
default_handler = "runc"
`+source+`
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.plain]
backend = "alpha"
[handlers.skip]
backend = "alpha"
service_env = { enabled = true, on_unavailable = "skip" }
[handlers.runc]
backend = "alpha"
service_env = { enabled = true, namespaces = ["shared"] }
`), alpha
}

func fromFile(path string) string { return "service_env.services_file = \"" + path + "\"" }

// asked is a request for a container of a pod with annotations.
func (p *proxy) asked(handler string, annotations map[string]string) *runtimeapi.CreateContainerRequest {
	p.t.Helper()
	request := createRequest(p.run(handler, handler), handler, "c", "app")
	maps.Copy(request.GetSandboxConfig().GetAnnotations(), annotations)
	request.Config.Envs = []*runtimeapi.KeyValue{{Key: "MY_DB_PORT", Value: []byte("mine")}, {Key: "A", Value: []byte{0xff}}}
	return request
}

// sendRaw sends a request as bytes and returns the bytes that arrived, nil if none.
func sendRaw(t *testing.T, p *proxy, alpha *fakeruntime.Runtime, sent []byte) ([]byte, error) {
	t.Helper()
	before := len(alpha.Calls("CreateContainer"))
	answer := &rawcri.Frame{}
	defer answer.Free()
	err := p.conn.Invoke(t.Context(), "/"+rawcri.RuntimeService+"/CreateContainer", rawcri.NewFrame(sent), answer)
	calls := alpha.Calls("CreateContainer")[before:]
	if len(calls) == 0 {
		return nil, err
	}
	return calls[0].Raw, err
}

// added are the variables that a container got beside its own.
func added(t *testing.T, p *proxy, alpha *fakeruntime.Runtime, request *runtimeapi.CreateContainerRequest) ([]string, error) {
	t.Helper()
	sent, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sendRaw(t, p, alpha, sent)
	if err != nil {
		if raw != nil {
			t.Error("a create that was refused went out")
		}
		return nil, err
	}
	var arrived runtimeapi.CreateContainerRequest
	if err := proto.Unmarshal(raw, &arrived); err != nil {
		t.Fatal(err)
	}
	var all []string
	own, envs := len(request.GetConfig().GetEnvs()), arrived.GetConfig().GetEnvs()
	for _, e := range envs[own:] {
		all = append(all, e.GetKey()+"="+string(e.GetValue()))
	}
	// But for them all is as it was sent.
	arrived.Config.Envs = envs[:own]
	if !proto.Equal(&arrived, request) {
		t.Errorf("sent %v\narrived %v", request, &arrived)
	}
	if len(all) == 0 && !bytes.Equal(raw, sent) {
		t.Error("without variables, other bytes arrived than were sent")
	}
	return all, nil
}

// withUnknownFields adds a field of the future to a message and to all in it,
// and returns how many there are.
func withUnknownFields(m protoreflect.Message) int {
	m.SetUnknown(append(m.GetUnknown(), protowire.AppendString(protowire.AppendTag(nil, 50001, protowire.BytesType), "from next year")...))
	n := 1
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				n += withUnknownFields(v.List().Get(i).Message())
			}
		default:
			n += withUnknownFields(v.Message())
		}
		return true
	})
	return n
}

// TestServiceEnv: the variables that are missing come last, and nothing else of
// the request changes, what this program does not know included.
func TestServiceEnv(t *testing.T) {
	t.Parallel()
	p, alpha := withServices(t, fromFile(writeFile(t, "services.yaml", servicesAt("10.0.0.7"))))
	request := p.asked("runc", nil)
	request.Config.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 2}}
	request.Config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/y"}}
	if n := withUnknownFields(request.ProtoReflect()); n < 10 {
		t.Fatalf("only %d messages got a field of the future", n)
	}
	got, err := added(t, p, alpha, request)
	want := append(dbVariables("10.0.0.7"),
		"CACHE_SERVICE_HOST=10.9.0.1", "CACHE_SERVICE_PORT=11211", "CACHE_PORT=tcp://10.9.0.1:11211", "CACHE_PORT_11211_TCP=tcp://10.9.0.1:11211",
		"CACHE_PORT_11211_TCP_PROTO=tcp", "CACHE_PORT_11211_TCP_PORT=11211", "CACHE_PORT_11211_TCP_ADDR=10.9.0.1")
	want = append(want[:2], want[3:]...) // The container has MY_DB_PORT.
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// TestServiceEnvOfPod: a pod can want variables, or not; a request for a container
// that gets none arrives byte for byte.
func TestServiceEnvOfPod(t *testing.T) {
	t.Parallel()
	p, alpha := withServices(t, fromFile(writeFile(t, "services.yaml", servicesAt("10.0.0.7"))))
	for name, tt := range map[string]struct {
		handler, annotation string
		variables           int
		refused             string
	}{
		"another handler":         {"plain", "", 0, ""},
		"wanted by the pod":       {"plain", "enabled", 6, ""},
		"not wanted by the pod":   {"skip", "disabled", 0, ""},
		"wanted by handler alone": {"skip", "", 6, ""},
		"malformed":               {"skip", "yes", 0, "annotation cri-proxy.io/service-env"},
	} {
		request := createRequest(p.run(strings.ReplaceAll(name, " ", "-"), tt.handler), name, "c", "app")
		request.Config.Envs = []*runtimeapi.KeyValue{{Key: "MY_DB_PORT", Value: []byte("mine")}}
		if tt.annotation != "" {
			request.GetSandboxConfig().GetAnnotations()[serviceenv.Annotation] = tt.annotation
		}
		withUnknownFields(request.ProtoReflect())
		got, err := added(t, p, alpha, request)
		if len(got) != tt.variables || (err != nil) != (tt.refused != "") {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if err != nil && (status.Code(err) != codes.InvalidArgument || !strings.Contains(messageOf(err), tt.refused)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestServiceEnvWithoutSource: with no Services anywhere, a pod that asks for
// variables is told so.
func TestServiceEnvWithoutSource(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, "")
	if _, err := added(t, p, alpha, p.asked("plain", map[string]string{serviceenv.Annotation: "enabled"})); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if got, err := added(t, p, alpha, createRequest(p.run("b", "runc"), "b", "c", "app")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if n := len(p.scrape().of("cri_proxy_service_cache_synced")); n != 0 {
		t.Errorf("%d metrics of a cache that is not there", n)
	}
}

// TestServiceEnvFollowsFile: what stands in the file when a container is created
// counts, and before there is one a container is refused or starts without.
func TestServiceEnvFollowsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.yaml")
	p, alpha := withServices(t, fromFile(path))
	synced := func() float64 { return p.scrape().of("cri_proxy_service_cache_synced").sum() }
	request := p.asked("runc", nil)
	if _, err := added(t, p, alpha, request); status.Code(err) != codes.Unavailable || !strings.Contains(messageOf(err), path) || synced() != 0 {
		t.Errorf("without the file: %v", err)
	}
	if got, err := added(t, p, alpha, p.asked("skip", nil)); err != nil || len(got) != 0 {
		t.Errorf("without the file, skipped: %v, %v", got, err)
	}
	write := func(content string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(content), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	host := func(request *runtimeapi.CreateContainerRequest) string {
		t.Helper()
		got, err := added(t, p, alpha, request)
		if err != nil || len(got) == 0 {
			t.Fatalf("got %v, %v", got, err)
		}
		return got[0]
	}
	write(servicesAt("10.0.0.1"))
	if got := host(request); got != "MY_DB_SERVICE_HOST=10.0.0.1" || synced() != 1 {
		t.Errorf("got %s", got)
	}
	write(servicesAt("10.0.0.3"))
	again := proto.CloneOf(request)
	again.Config.Metadata.Name = "again"
	if got := host(again); got != "MY_DB_SERVICE_HOST=10.0.0.3" {
		t.Errorf("after a change: %s", got)
	}
	write("kind: [\n")
	again.Config.Metadata.Name = "broken"
	if got := host(again); got != "MY_DB_SERVICE_HOST=10.0.0.3" {
		t.Errorf("after a mistake: %s", got)
	}
	if s := p.serviceCache(); s == nil || !s.Synced || s.Services != 2 || s.Source != path || s.Error == "" {
		t.Errorf("the status says %+v", s)
	}
}

// serviceCache is what the daemon's status says of the Services.
func (p *proxy) serviceCache() *serviceenv.State {
	p.t.Helper()
	body, err := admin.Get(p.t.Context(), filepath.Join(p.dir, "a"), "/v1/status")
	var r report
	if err := errors.Join(err, json.Unmarshal(body, &r)); err != nil {
		p.t.Fatal(err)
	}
	return r.ServiceCache
}

func TestServiceEnvTooLarge(t *testing.T) {
	t.Parallel()
	services := &strings.Builder{}
	for i := range 400 {
		fmt.Fprintf(services, "---\n%s", strings.Replace(strings.Split(servicesAt("10.0.0.1"), "---")[0], "my-db", fmt.Sprintf("service-%d", i), 1))
	}
	p, alpha := withServices(t, fromFile(writeFile(t, "services.yaml", services.String())))
	_, err := added(t, p, alpha, p.asked("runc", nil))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(messageOf(err), "65536") {
		t.Errorf("got %v", err)
	}
}

// TestServiceEnvOfUnknownSandbox: a sandbox that was made past the proxy has a
// handler, too.
func TestServiceEnvOfUnknownSandbox(t *testing.T) {
	t.Parallel()
	p, alpha := withServices(t, fromFile(writeFile(t, "services.yaml", servicesAt("10.0.0.1"))))
	made, err := runtimeOf(t, alpha).RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("x"), RuntimeHandler: "skip"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := added(t, p, alpha, createRequest(made.GetPodSandboxId(), "x", "c", "app")); err != nil || len(got) != 7 {
		t.Errorf("got %v, %v", got, err)
	}
}
