package rawcri

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criMethods returns the descriptors of all CRI methods.
func criMethods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	services := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			all = append(all, methods.Get(j))
		}
	}
	return all
}

// TestCRIShape pins what the whole proxy rests on, so that the next cri-api
// cannot take it away unseen.
func TestCRIShape(t *testing.T) {
	t.Parallel()
	methods := criMethods()
	if len(methods) < 43 {
		t.Fatalf("cri-api describes %d methods, at least 43 are known", len(methods))
	}
	for _, m := range methods {
		t.Run(string(m.Name()), func(t *testing.T) {
			t.Parallel()
			if m.IsStreamingClient() {
				t.Errorf("%s has a client stream: a call here has one request message", m.Name())
			}
			checkID(t, m)
			checkList(t, m)
		})
	}
}

func checkID(t *testing.T, m protoreflect.MethodDescriptor) {
	t.Helper()
	want := NoID
	fields := m.Input().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		kind := map[protoreflect.Name]IDKind{"container_id": ContainerID, "pod_sandbox_id": SandboxID}[f.Name()]
		if kind == NoID {
			continue
		}
		if f.Number() != 1 || f.Kind() != protoreflect.StringKind || f.Cardinality() == protoreflect.Repeated {
			t.Errorf("%s: %s is not the string field 1 but %s", m.Name(), f.Name(), f)
		}
		want = kind
	}
	full := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	got := NewCatalog().Lookup(full)
	if !got.Known || got.ID != want || got.ServerStreams != m.IsStreamingServer() || got.Name != string(m.Name()) {
		t.Errorf("catalog says %+v of %s, whose id is of kind %d", got, full, want)
	}
}

// checkList: answers that are strung together have no content but the
// repeated field 1, in both forms of a list.
func checkList(t *testing.T, m protoreflect.MethodDescriptor) {
	t.Helper()
	name := string(m.Name())
	if !strings.HasPrefix(name, "List") && (!strings.HasPrefix(name, "Stream") || !m.IsStreamingServer()) {
		return
	}
	fields := m.Output().Fields()
	if fields.Len() != 1 || fields.Get(0).Number() != 1 || !fields.Get(0).IsList() || fields.Get(0).Message() == nil {
		t.Errorf("%s answers with %s: not just a repeated message in field 1", name, m.Output().FullName())
	}
}

func TestUnknownMethod(t *testing.T) {
	t.Parallel()
	got := NewCatalog().Lookup("/runtime.v1.RuntimeService/NextYears")
	if got.Known || got.Service != RuntimeService || got.Name != "NextYears" {
		t.Errorf("got %+v", got)
	}
}

// TestPlans: every handler name in an answer is in reach of a rewrite.
func TestPlans(t *testing.T) {
	t.Parallel()
	want := map[string]bool{
		"PodSandboxStatus": true, "ListPodSandbox": true, "StreamPodSandboxes": true, "ListContainers": true, "StreamContainers": true,
		"ContainerStatus": true, "GetContainerEvents": true, "ListImages": true, "StreamImages": true, "ImageStatus": true,
		"ImageFsInfo": false, "Version": false, "ListContainerStats": false,
	}
	got := map[string]bool{}
	for _, m := range NewCatalog().All() {
		got[m.Name] = m.Answer != nil
	}
	for name, planned := range want {
		if got[name] != planned {
			t.Errorf("%s: plan %v, want %v", name, got[name], planned)
		}
	}
}
