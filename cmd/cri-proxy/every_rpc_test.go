package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// rpcCase is what one RPC is expected to do in front of two backends, for a
// pod on beta.
type rpcCase struct {
	to       []string // The backends that get it.
	changed  bool     // Its bytes may change on the way up.
	noHeader bool     // The answer is made of several: no one's header.
	as       string   // The method that arrives, if it is another.
}

// rpcCases are those that differ from "to the owner of the id, untouched".
func rpcCases() map[string]rpcCase {
	onlyBeta, onlyAlpha, both := []string{"beta"}, []string{"alpha"}, []string{"alpha", "beta"}
	merged := rpcCase{to: both, noHeader: true}
	return map[string]rpcCase{
		"Version": {to: onlyAlpha}, "RuntimeConfig": {to: onlyAlpha},
		"Status": {to: both}, "UpdateRuntimeConfig": {to: both},
		"ListPodSandbox": merged, "ListContainers": merged, "ListContainerStats": merged, "ListPodSandboxStats": merged,
		"ListPodSandboxMetrics": merged, "ListMetricDescriptors": merged,
		"StreamPodSandboxes": merged, "StreamContainers": merged, "StreamContainerStats": merged, "StreamPodSandboxStats": merged,
		"StreamPodSandboxMetrics": merged, "GetContainerEvents": merged,
		"RunPodSandbox": {to: onlyBeta}, "RestorePod": {to: onlyBeta},
		"ListImages": merged, "StreamImages": {to: both, noHeader: true, as: "ListImages"}, "RemoveImage": {to: both}, "ImageFsInfo": {to: both},
		"ImageStatus": {to: onlyBeta}, "PullImage": {to: onlyBeta, changed: true},
	}
}

// TestEveryRPC sends each RPC of cri-api, with a field that cri-api does not
// know, and looks at what arrives upstream and what comes back.
func TestEveryRPC(t *testing.T) {
	t.Parallel()
	for _, m := range rawcri.NewCatalog().All() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			beta.Configure(func(o *fakeruntime.Options) { o.PodCheckpoints = true })
			beta.AddImage("app", nil)
			sandbox := p.run("b", "isolated")
			container := p.create(sandbox, "b", "c")
			if m.Name != "StartContainer" {
				if _, err := p.runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: container}); err != nil {
					t.Fatal(err)
				}
			}
			expect, ok := rpcCases()[m.Name]
			if !ok {
				expect = rpcCase{to: []string{"beta"}}
				if m.ID == rawcri.NoID {
					t.Fatalf("%s has no id in field 1 and no case here: how is it routed?", m.Name)
				}
			}
			alpha.ClearJournal()
			beta.ClearJournal()
			request := sample(t, m, sandbox, container)
			got := p.send(m, request)
			if got.err != nil {
				t.Errorf("answered %v", got.err)
			}
			expect.checkUpstream(t, m, request, map[string]*fakeruntime.Runtime{"alpha": alpha, "beta": beta})
			expect.checkAnswer(t, got)
		})
	}
}

func (c rpcCase) checkUpstream(t *testing.T, m rawcri.Method, request []byte, fakes map[string]*fakeruntime.Runtime) {
	t.Helper()
	for name, fake := range fakes {
		want := 0
		if slices.Contains(c.to, name) {
			want = 1
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		calls, err := fake.WaitCalls(ctx, cmp.Or(c.as, m.Name), want) // An open event stream arrives in its own time.
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if len(calls) != want {
			t.Errorf("%s got %d calls, want %d", name, len(calls), want)
			continue
		}
		for _, call := range calls {
			if !c.changed && !bytes.Equal(call.Raw, request) {
				t.Errorf("%s got other bytes than were sent:\n%x\n%x", name, call.Raw, request)
			}
			if !bytes.Contains(call.Raw, []byte("from next year")) {
				t.Errorf("the unknown field did not arrive at %s", name)
			}
			if got := call.Metadata.Get("traceparent"); !slices.Equal(got, []string{"00-trace"}) {
				t.Errorf("traceparent at %s: %q", name, got)
			}
			if len(call.Metadata.Get("content-type")) > 1 || len(call.Metadata.Get("user-agent")) > 1 {
				t.Errorf("doubled transport headers at %s: %v", name, call.Metadata)
			}
		}
	}
}

func (c rpcCase) checkAnswer(t *testing.T, got answered) {
	t.Helper()
	if c.noHeader {
		return
	}
	from := c.to[0]
	if !slices.Equal(got.header.Get(fakeruntime.HeaderKey), []string{from}) || !slices.Equal(got.trailer.Get(fakeruntime.TrailerKey), []string{from}) {
		t.Errorf("header %v, trailer %v, want those of %s", got.header, got.trailer, from)
	}
	if got.err == nil && !bytes.Contains(slices.Concat(got.messages...), unknownField(from)) {
		t.Errorf("the answer has lost the field that cri-api does not know")
	}
}

// answered is all that came back of one call.
type answered struct {
	messages        [][]byte
	header, trailer metadata.MD
	err             error
}

// send makes a call with raw bytes; of an event stream it reads nothing.
func (p *proxy) send(m rawcri.Method, request []byte) answered {
	p.t.Helper()
	ctx := metadata.AppendToOutgoingContext(p.t.Context(), "traceparent", "00-trace")
	up, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, m.FullName)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := up.SendMsg(rawcri.NewFrame(request)); err != nil {
		p.t.Fatal(err)
	}
	if err := up.CloseSend(); err != nil {
		p.t.Fatal(err)
	}
	var got answered
	if m.Name == "GetContainerEvents" {
		return got
	}
	if got.header, err = up.Header(); err != nil {
		p.t.Fatal(err)
	}
	for {
		f := &rawcri.Frame{}
		if err := up.RecvMsg(f); err != nil {
			if !errors.Is(err, io.EOF) {
				got.err = err
			}
			got.trailer = up.Trailer()
			return got
		}
		got.messages = append(got.messages, contents(f))
	}
}

func contents(f *rawcri.Frame) []byte {
	defer f.Free()
	raw, err := rawcri.NewCodec().Marshal(f)
	if err != nil {
		panic(err)
	}
	defer raw.Free()
	return raw.Materialize()
}

func unknownField(value string) []byte {
	b := protowire.AppendTag(nil, fakeruntime.UnknownFieldNumber, protowire.BytesType)
	return protowire.AppendString(b, value)
}

// sample returns a request of the method, for the pod on beta.
func sample(t *testing.T, m rawcri.Method, sandbox, container string) []byte {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(m.Service + "." + m.Name))
	if err != nil {
		t.Fatal(err)
	}
	request := dynamicpb.NewMessage(d.(protoreflect.MethodDescriptor).Input()) //nolint:errcheck,forcetypeassert // A test may panic.
	set := func(name string, v any) {
		if f := request.Descriptor().Fields().ByName(protoreflect.Name(name)); f != nil {
			request.Set(f, protoreflect.ValueOf(v))
		}
	}
	set("container_id", container)
	set("pod_sandbox_id", sandbox)
	set("runtime_handler", "isolated")
	set("timeout", int64(1))
	switch m.Name {
	case "RunPodSandbox", "RestorePod":
		merge(t, request, "config", sandboxConfig("new"))
	case "CreateContainer":
		set("pod_sandbox_id", sandbox)
		merge(t, request, "config", createRequest(sandbox, "b", "d", "app").GetConfig())
		merge(t, request, "sandbox_config", sandboxConfig("b"))
	case "PullImage":
		merge(t, request, "image", createRequest(sandbox, "b", "d", "app").GetConfig().GetImage())
		merge(t, request, "sandbox_config", sandboxConfig("b"))
	case "ImageStatus", "RemoveImage":
		spec := createRequest(sandbox, "b", "d", "app").GetConfig().GetImage()
		spec.Annotations = sandboxConfig("b").GetAnnotations()
		merge(t, request, "image", spec)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	b = protowire.AppendTag(b, 60001, protowire.BytesType)
	return protowire.AppendString(b, "from next year")
}

// merge sets a message field by way of its bytes, since request is dynamic.
func merge(t *testing.T, request *dynamicpb.Message, field string, m proto.Message) {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	f := request.Descriptor().Fields().ByName(protoreflect.Name(field))
	if err := proto.Unmarshal(b, request.Mutable(f).Message().Interface()); err != nil {
		t.Fatal(err)
	}
}

// TestUnknownMethods: a method that cri-api does not know.
func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	echo := func(_ string, request []byte) ([]byte, error) { return append([]byte(nil), request...), nil }
	next := rawcri.NewCatalog().Lookup("/" + rawcri.RuntimeService + "/NextYears")
	p, alpha, beta := twoBackends(t)
	alpha.Configure(func(o *fakeruntime.Options) { o.UnknownMethod = echo })
	beta.Configure(func(o *fakeruntime.Options) { o.UnknownMethod = echo })
	sandbox := p.run("b", "isolated")
	request := func(id string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	}
	got := p.send(next, request(sandbox))
	if got.err != nil || len(got.messages) != 1 || !bytes.Equal(got.messages[0], request(sandbox)) || !slices.Equal(got.header.Get(fakeruntime.HeaderKey), []string{"beta"}) {
		t.Errorf("by a known id: %+v, want beta's echo", got)
	}
	for name, r := range map[string][]byte{"short id": request(sandbox[:12]), "no id": nil, "random bytes": {0xff, 1}} {
		if got := p.send(next, r); status.Code(got.err) != codes.Unimplemented {
			t.Errorf("%s: %+v, want Unimplemented", name, got)
		}
	}
	single := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
`)
	if got := single.send(next, []byte{0xff, 1}); got.err != nil || !bytes.Equal(got.messages[0], []byte{0xff, 1}) {
		t.Errorf("with one backend: %+v, want its echo", got)
	}
}
