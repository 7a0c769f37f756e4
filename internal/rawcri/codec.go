package rawcri

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto" // Registers the real codec, which codec falls back on.
	"google.golang.org/grpc/mem"
)

// codec keeps a *Frame as the buffers it came in and leaves every other
// message to the real protobuf codec. It bears the name "proto", so that the
// content type on the wire does not change.
type codec struct {
	messages encoding.CodecV2
}

// NewCodec returns the codec to force on the servers and clients that carry
// frames.
func NewCodec() encoding.CodecV2 {
	return codec{messages: encoding.GetCodecV2(proto.Name)}
}

// Name implements encoding.CodecV2.
func (codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2. gRPC frees what it is given once it
// is sent; the frame keeps a reference of its own, so that one frame can go to
// several upstreams.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return c.messages.Marshal(v)
	}
	f.data.Ref()
	return f.data, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return c.messages.Unmarshal(data, v)
	}
	if f.data != nil {
		return fmt.Errorf("frame already holds a message of %d bytes", f.Len())
	}
	data.Ref()
	f.data = data
	return nil
}
