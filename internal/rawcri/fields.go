package rawcri

import (
	"errors"
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// fields walks the top-level fields of a message that lies in several buffers.
// What lies within one is read in place; only what crosses from one to the next
// is copied, so that a list of megabytes is never held a second time.
type fields struct {
	rest    mem.BufferSlice // Buffers not begun.
	b       []byte          // What is left of the one begun.
	crossed []byte          // The last field that crossed.
}

// next returns a whole field with its tag, valid until the following call; nil
// after the last one.
func (w *fields) next() ([]byte, error) {
	for len(w.b) == 0 {
		if !w.fill() {
			return nil, nil
		}
	}
	lacking, err := lacks(w.b)
	if err != nil {
		return nil, err
	}
	if lacking > 0 {
		return w.cross()
	}
	field := w.b[:len(w.b)+lacking]
	w.b = w.b[len(field):]
	return field, nil
}

func (w *fields) fill() bool {
	if len(w.rest) == 0 {
		return false
	}
	w.b, w.rest = w.rest[0].ReadOnlyData(), w.rest[1:]
	return true
}

// cross puts together a field that begins in one buffer and ends in another.
func (w *fields) cross() ([]byte, error) {
	w.crossed = w.crossed[:0]
	for {
		lacking, err := lacks(w.crossed)
		if err != nil || (lacking == 0 && len(w.crossed) > 0) {
			return w.crossed, err
		}
		for len(w.b) == 0 {
			if !w.fill() {
				return nil, errMalformed // It ends in the middle of a field.
			}
		}
		n := min(max(lacking, 1), len(w.b))
		w.crossed = append(w.crossed, w.b[:n]...)
		w.b = w.b[n:]
	}
}

// lacks returns how many bytes, as far as can be told, are missing at the end
// of b for the field that it begins with; negative is how many there are beyond
// it.
func lacks(b []byte) (int, error) {
	number, kind, tag := protowire.ConsumeTag(b)
	if tag < 0 {
		return oneMore(tag)
	}
	if kind != protowire.BytesType {
		value := protowire.ConsumeFieldValue(number, kind, b[tag:])
		if value < 0 {
			return oneMore(value)
		}
		return tag + value - len(b), nil
	}
	length, size := protowire.ConsumeVarint(b[tag:])
	if size < 0 {
		return oneMore(size)
	}
	if length > MaxMessageSize {
		return 0, errMalformed
	}
	return tag + size + int(length) - len(b), nil
}

// oneMore is what is missing when protowire could not read on.
func oneMore(code int) (int, error) {
	if errors.Is(protowire.ParseError(code), io.ErrUnexpectedEOF) {
		return 1, nil
	}
	return 0, errMalformed
}

// chunks is a message that is being written, in pooled buffers.
type chunks struct {
	size int // Of a buffer.
	done mem.BufferSlice
	open *[]byte // What is being filled; nil before the first byte.
}

// maxChunk is the largest buffer that gRPC's pool has many of.
const maxChunk = 32 << 10

func (c *chunks) write(b []byte) {
	for len(b) > 0 {
		if c.open == nil {
			c.open = mem.DefaultBufferPool().Get(c.size)
			*c.open = (*c.open)[:0]
		}
		n := min(len(b), cap(*c.open)-len(*c.open))
		*c.open = append(*c.open, b[:n]...)
		b = b[n:]
		if len(*c.open) == cap(*c.open) {
			c.close()
		}
	}
}

// close finishes the buffer that is being filled.
func (c *chunks) close() {
	if c.open != nil {
		c.done = append(c.done, mem.NewBuffer(c.open, mem.DefaultBufferPool()))
		c.open = nil
	}
}

// frame returns what was written; the chunks are not to be used any more.
func (c *chunks) frame() *Frame {
	c.close()
	return &Frame{data: c.done}
}
