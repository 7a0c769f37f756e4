package fakeruntime

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// frame is a message that is not decoded, so that the journal has the bytes that were sent.
type frame struct {
	raw []byte
}

// codec leaves frames as they are and hands all other messages to gRPC's own codec.
type codec struct{}

// Name is that of the codec it stands in for.
func (codec) Name() string { return grpcproto.Name }

// Marshal encodes a message, or passes a frame on.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.raw)}, nil
	}
	return encoding.GetCodecV2(grpcproto.Name).Marshal(v)
}

// Unmarshal copies a message into a frame: the buffers belong to gRPC.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("receive a message into %T, want a frame", v)
	}
	f.raw = data.Materialize()
	return nil
}

// marked encodes m with the unknown field at the end.
func marked(m proto.Message, value string) (*frame, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a response: %w", err)
	}
	return &frame{raw: append(raw, unknownField(value)...)}, nil
}

// unknownField is a field that cri-api does not know, on the wire.
func unknownField(value string) []byte {
	raw := protowire.AppendTag(nil, UnknownFieldNumber, protowire.BytesType)
	return protowire.AppendString(raw, value)
}
