package rawcri

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Frame is one protobuf message in wire format, in buffers that may belong to
// gRPC's pool. Whoever receives a Frame calls Free once; what was read in place
// ([Frame.ID]) must be copied before that if it is to be kept. A Frame is safe
// for concurrent reads, not for a read beside Free.
type Frame struct {
	data mem.BufferSlice
}

// NewFrame returns a frame that holds b, which the caller must not change
// any more.
func NewFrame(b []byte) *Frame {
	return &Frame{data: mem.BufferSlice{mem.SliceBuffer(b)}}
}

// Encode returns m as a frame.
func Encode(m proto.Message) (*Frame, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return NewFrame(b), nil
}

// Decode fills m from the frame. Fields that m's type does not know stay in
// it as unknown fields, so that encoding m again loses nothing.
func (f *Frame) Decode(m proto.Message) error {
	b, free := f.contiguous()
	defer free()
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("decode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

// Len returns the message's size in bytes.
func (f *Frame) Len() int { return f.data.Len() }

// Ref returns a second frame over the same bytes, to be freed on its own.
func (f *Frame) Ref() *Frame {
	f.data.Ref()
	return &Frame{data: f.data}
}

// Free gives the buffers back. It may be called on a nil or freed frame.
func (f *Frame) Free() {
	if f == nil {
		return
	}
	f.data.Free()
	f.data = nil
}

// errMalformed stands for every way in which bytes can fail to be protobuf.
var errMalformed = errors.New("not a valid protobuf message")

// ID reads the message's string field 1 where it stands; empty when the
// message has none. Of a repeated field 1 the last counts, as in every
// protobuf decoder, so that the upstream cannot read another id than the one
// that was routed by. The bytes are valid until Free.
func (f *Frame) ID() ([]byte, error) {
	b, free := f.contiguous()
	defer free()
	id, err := lastBytes(b, 1)
	if err == nil && len(f.data) > 1 {
		// What free hands back to the pool must not be referred to.
		id = append([]byte(nil), id...)
	}
	return id, err
}

// lastBytes returns the last length-delimited field of that number.
func lastBytes(b []byte, field protowire.Number) ([]byte, error) {
	var found []byte
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, errMalformed
		}
		b = b[n:]
		if number != field || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return nil, errMalformed
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return nil, errMalformed
		}
		found, b = value, b[n:]
	}
	return found, nil
}

// head gives the first n bytes of the message to write, in pieces.
func (f *Frame) head(n int, write func([]byte)) {
	for _, buffer := range f.data {
		piece := buffer.ReadOnlyData()
		piece = piece[:min(n, len(piece))]
		write(piece)
		n -= len(piece)
	}
}

// contiguous returns the message in one piece: in place when it lies in one
// buffer, else copied into a pooled one. The bytes are valid until free.
func (f *Frame) contiguous() (b []byte, free func()) {
	switch len(f.data) {
	case 0:
		return nil, func() {}
	case 1:
		return f.data[0].ReadOnlyData(), func() {}
	}
	buffer := f.data.MaterializeToBuffer(mem.DefaultBufferPool())
	return buffer.ReadOnlyData(), buffer.Free
}
