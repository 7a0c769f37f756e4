package rawcri

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// scatter returns b as a frame of several buffers, as it comes off a
// connection, cut at random.
func scatter(b []byte, random *rand.Rand) *Frame {
	f := &Frame{}
	for len(b) > 0 {
		n := 1 + random.IntN(len(b))
		f.data = append(f.data, mem.Copy(b[:n], mem.DefaultBufferPool()))
		b = b[n:]
	}
	return f
}

func TestFrameID(t *testing.T) {
	t.Parallel()
	id := func(parts ...string) []byte {
		var b []byte
		for _, p := range parts {
			part, err := proto.Marshal(&runtimeapi.StopContainerRequest{ContainerId: p, Timeout: 7})
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, part...)
		}
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want string
		err  bool
	}{
		{name: "first", in: id("abc"), want: "abc"},
		{name: "the last of several counts, as for every decoder", in: id("abc", "def"), want: "def"},
		{name: "behind another field", in: append([]byte{0x10, 0x07}, id("abc")...), want: "abc"},
		{name: "empty message", in: nil},
		{name: "field 1 is no string", in: []byte{0x08, 0x01}},
		{name: "random bytes", in: []byte{0xff, 0xff, 0xff}, err: true},
		{name: "cut short", in: id("abc")[:3], err: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			for _, f := range []*Frame{NewFrame(tt.in), scatter(tt.in, random)} {
				got, err := f.ID()
				if string(got) != tt.want || (err != nil) != tt.err {
					t.Errorf("got %q, %v", got, err)
				}
				f.Free()
			}
		})
	}
}

func TestMergeTooLarge(t *testing.T) {
	t.Parallel()
	half := NewFrame(make([]byte, MaxMessageSize/2+1))
	_, err := Merge("ListContainers", []*Frame{half, half})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "16777218") || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("got %v, want ResourceExhausted naming size and limit", err)
	}
}

// rename is the translation that the tests use: by sandbox id, or by name.
func rename(sandbox, handler []byte) (string, bool) {
	switch {
	case bytes.HasPrefix(sandbox, []byte("s")):
		return "shared-handler-with-a-long-name", true
	case len(handler) == 0:
		return "standard", true
	case handler[0] == 'k':
		return "", false
	default:
		return "x" + string(handler), true
	}
}

// renameDecoded is what Rewrite does, on the decoded message.
func renameDecoded(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				renameDecoded(v.List().Get(i).Message())
			}
		default:
			renameDecoded(v.Message())
		}
		return true
	})
	f := m.Descriptor().Fields().ByName("runtime_handler")
	if f == nil {
		return
	}
	handler := []byte(m.Get(f).String())
	var sandbox []byte
	if id := m.Descriptor().Fields().ByNumber(1); id.Name() == "id" {
		sandbox = []byte(m.Get(id).String())
	} else if len(handler) == 0 {
		return
	}
	if name, ok := rename(sandbox, handler); ok {
		m.Set(f, protoreflect.ValueOfString(name))
	}
}

// answers are the messages in which handler names travel.
func answers() []proto.Message {
	return []proto.Message{
		&runtimeapi.ListPodSandboxResponse{}, &runtimeapi.PodSandboxStatusResponse{}, &runtimeapi.ListContainersResponse{},
		&runtimeapi.ContainerStatusResponse{}, &runtimeapi.ContainerEventResponse{}, &runtimeapi.ListImagesResponse{}, &runtimeapi.ImageStatusResponse{},
		&runtimeapi.PodSandbox{}, // No answer, but one whose own field is renamed.
	}
}

func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	long := strings.Repeat("annotation ", 300)
	messages := []proto.Message{
		&runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{
			{Id: "s1", RuntimeHandler: "runc", Labels: map[string]string{"a": "b"}},
			{Id: "2", Annotations: map[string]string{"long": long}},
			{Id: "3", RuntimeHandler: "kept"},
			{Id: "4", RuntimeHandler: strings.Repeat("r", 127)}, // Its message's length grows by a byte.
			{Id: strings.Repeat("s", 40), RuntimeHandler: strings.Repeat("r", 200)},
		}},
		&runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Id: "1", RuntimeHandler: "runc"}, Info: map[string]string{"k": "v"}},
		&runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
			Id: "c", Image: &runtimeapi.ImageSpec{Image: "i", RuntimeHandler: "runc"}, Mounts: []*runtimeapi.Mount{{Image: &runtimeapi.ImageSpec{RuntimeHandler: "q"}}},
		}},
		&runtimeapi.ContainerEventResponse{ContainerId: "c", PodSandboxStatus: &runtimeapi.PodSandboxStatus{Id: "s9"}},
		&runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{{Id: "i", Spec: &runtimeapi.ImageSpec{}}}},
	}
	all := [][]byte{nil, {0xff}, {0x0a, 0x05, 0x01}}
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzRewrite holds the rewrite on the wire against decode, change, encode.
func FuzzRewrite(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, uint64(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		for _, m := range answers() {
			plan := NewPlan(m.ProtoReflect().Descriptor())
			if proto.Unmarshal(in, m) != nil {
				// Not to be decoded: whatever comes of it must not crash.
				if out, err := plan.Rewrite(scatter(in, random), rename); err == nil {
					out.Free()
				}
				continue
			}
			canonical, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			src := scatter(canonical, random)
			out, err := plan.Rewrite(src, rename)
			src.Free()
			if err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			got := m.ProtoReflect().New().Interface()
			if err := out.Decode(got); err != nil {
				t.Fatalf("%T: the rewritten message does not decode: %v", m, err)
			}
			out.Free()
			renameDecoded(m.ProtoReflect())
			if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
				t.Fatalf("%T differs from decode and encode (-want +got):\n%s", m, diff)
			}
		}
	})
}

// FuzzMerge holds the merge on the wire against decode, append, encode.
func FuzzMerge(f *testing.F) {
	all := seeds(f)
	for i, b := range all {
		f.Add(b, all[(i+1)%len(all)], uint64(i))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, seed uint64) {
		var x, y, got runtimeapi.ListContainersResponse
		if proto.Unmarshal(a, &x) != nil || proto.Unmarshal(b, &y) != nil {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		parts := []*Frame{scatter(a, random), NewFrame(nil), scatter(b, random)}
		merged, err := Merge("ListContainers", parts)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			p.Free() // The merged frame has references of its own.
		}
		if err := merged.Decode(&got); err != nil {
			t.Fatal(err)
		}
		merged.Free()
		proto.Merge(&x, &y)
		if diff := cmp.Diff(&x, &got, protocmp.Transform()); diff != "" {
			t.Fatalf("differs from decode and append (-want +got):\n%s", diff)
		}
	})
}

// TestRewriteAllocations: nothing per item, and per buffer of the new list what
// a buffer costs.
func TestRewriteAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun measures the whole process.
	allocations := func(items int) (count float64, buffers int) {
		list := &runtimeapi.ListPodSandboxResponse{}
		for range items {
			list.Items = append(list.Items, &runtimeapi.PodSandbox{Id: strings.Repeat("a", 64), RuntimeHandler: "kept", Annotations: map[string]string{"a": "b"}})
		}
		frame, err := Encode(list)
		if err != nil {
			t.Fatal(err)
		}
		plan := NewPlan(list.ProtoReflect().Descriptor())
		return testing.AllocsPerRun(50, func() {
			out, err := plan.Rewrite(frame, func([]byte, []byte) (string, bool) { return "renamed", true })
			if err != nil {
				t.Fatal(err)
			}
			buffers = len(out.data)
			out.Free()
		}), buffers
	}
	few, _ := allocations(10)
	if many, buffers := allocations(5000); many > few+4+3*float64(buffers) {
		t.Errorf("%v allocations for 5,000 sandboxes in %d buffers, %v for 10", many, buffers, few)
	}
}

// TestRewriteNothing: a list without a handler name is answered with the bytes
// that came, and not copied.
func TestRewriteNothing(t *testing.T) {
	t.Parallel()
	list := &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{
		{Id: "a", Image: &runtimeapi.ImageSpec{Image: "i"}}, {Id: "b", Labels: map[string]string{"a": "b"}},
	}}
	whole, err := proto.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	in := scatter(whole, rand.New(rand.NewPCG(1, 2)))
	out, err := NewPlan(list.ProtoReflect().Descriptor()).Rewrite(in, rename)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(in.data, out.data, func(a, b mem.Buffer) bool { return &a.ReadOnlyData()[0] == &b.ReadOnlyData()[0] }) {
		t.Error("the list was copied")
	}
	out.Free()
	in.Free()
}
