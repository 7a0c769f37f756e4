package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// errNotFound is what a missing object is called in an error; it becomes code NotFound.
var errNotFound = errors.New("not found")

// method serves one method of cri-api. A unary one returns its response, a stream sends them and returns nil.
type method struct {
	request protoreflect.MessageType
	serve   func(ctx context.Context, raw []byte, out *outStream) (proto.Message, error)
}

// methodTable are all methods of both services by their full name.
func methodTable(s *service) map[string]method {
	table := map[string]method{}
	for _, desc := range []grpc.ServiceDesc{runtimeapi.RuntimeService_ServiceDesc, runtimeapi.ImageService_ServiceDesc} {
		for _, m := range desc.Methods {
			table["/"+desc.ServiceName+"/"+m.MethodName] = method{
				request: requestType(desc.ServiceName, m.MethodName),
				serve:   unary(s, m),
			}
		}
		for _, m := range desc.Streams {
			table["/"+desc.ServiceName+"/"+m.StreamName] = method{
				request: requestType(desc.ServiceName, m.StreamName),
				serve:   streaming(s, m),
			}
		}
	}
	return table
}

func unary(s *service, m grpc.MethodDesc) func(context.Context, []byte, *outStream) (proto.Message, error) {
	return func(ctx context.Context, raw []byte, _ *outStream) (proto.Message, error) {
		reply, err := m.Handler(s, ctx, func(request any) error { return decode(raw, request) }, nil)
		if err != nil {
			return nil, err
		}
		message, ok := reply.(proto.Message)
		if !ok {
			return nil, status.Errorf(codes.Internal, "the fake runtime answered %s with %T", m.MethodName, reply)
		}
		return message, nil
	}
}

func streaming(s *service, m grpc.StreamDesc) func(context.Context, []byte, *outStream) (proto.Message, error) {
	return func(_ context.Context, raw []byte, out *outStream) (proto.Message, error) {
		out.request = raw
		return nil, m.Handler(s, out)
	}
}

// requestType finds the request's Go type through the service's descriptor. The generated code registers both, so a
// failure here is a broken cri-api, which no test can go on with.
func requestType(service, name string) protoreflect.MessageType {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		panic(err)
	}
	desc, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		panic(fmt.Sprintf("%s/%s is a %T, not a method", service, name, found))
	}
	request, err := protoregistry.GlobalTypes.FindMessageByName(desc.Input().FullName())
	if err != nil {
		panic(err)
	}
	return request
}

func decode(raw []byte, request any) error {
	m, ok := request.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "the fake runtime cannot decode into %T", request)
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return status.Errorf(codes.Internal, "decode the request: %v", err)
	}
	return nil
}

// handle serves every call: one request in, the journal, the faults, the method, its answer.
func (r *Runtime) handle(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	o := r.current()
	if err := stream.SetHeader(metadata.Pairs(HeaderKey, o.Name)); err != nil {
		return err
	}
	stream.SetTrailer(metadata.Pairs(TrailerKey, o.Name))
	var in frame
	if err := stream.RecvMsg(&in); err != nil {
		return noRequest(err)
	}
	call := r.received(stream.Context(), name, in.raw)
	if !o.NoJournal {
		r.journal.add(call)
	}
	out := &outStream{ServerStream: stream, fault: r.faults.take(call)}
	if o.UnknownField {
		out.mark = o.Name
	}
	return asStatus(r.answer(call, o, out))
}

// answer lets the call's fault strike where it asked to: before the work, or between the work and the answer.
func (r *Runtime) answer(call Call, o Options, out *outStream) error {
	if err := out.fault.before(out.Context()); err != nil {
		return err
	}
	reply, err := r.work(call, o, out)
	if faultErr := out.fault.after(out.Context()); faultErr != nil {
		return faultErr
	}
	if err != nil || reply == nil {
		return err
	}
	return out.SendMsg(reply)
}

// work returns a message of cri-api, a frame, or nil after a stream.
func (r *Runtime) work(call Call, o Options, out *outStream) (any, error) {
	m, known := r.methods[call.Method]
	if known && slices.Contains(o.Unimplemented, call.Short()) {
		return nil, unimplemented(call.Method)
	}
	if !known {
		return unknown(call, o)
	}
	reply, err := m.serve(out.Context(), call.Raw, out)
	if err != nil || reply == nil {
		return nil, err
	}
	return reply, nil
}

func unknown(call Call, o Options) (any, error) {
	if o.UnknownMethod == nil {
		return nil, unimplemented(call.Method)
	}
	raw, err := o.UnknownMethod(call.Method, call.Raw)
	if err != nil {
		return nil, err
	}
	return &frame{raw: raw}, nil
}

// unimplemented is the answer of a gRPC server without the method.
func unimplemented(name string) error {
	service, short, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	return status.Errorf(codes.Unimplemented, "unknown method %s for service %s", short, service)
}

func (r *Runtime) received(ctx context.Context, name string, raw []byte) Call {
	call := Call{Method: name, Raw: raw, Received: time.Now(), request: r.methods[name].request}
	call.Deadline, _ = ctx.Deadline()
	call.Metadata, _ = metadata.FromIncomingContext(ctx)
	return call
}

func noRequest(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "the call ended without a request")
	}
	return err
}

// asStatus gives errors the codes that containerd gives them at its border. A status stays what it is.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, errNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	default:
		return status.Error(codes.Unknown, err.Error())
	}
}
