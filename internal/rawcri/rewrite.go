package rawcri

import (
	"bytes"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Rename gives the name under which the proxy's callers know a handler that
// an upstream names, or false when it stays as it is. sandbox is the id of the
// pod sandbox that carries the name, or nil where an image spec carries it. Both
// arguments are valid during the call only.
type Rename func(sandbox, handler []byte) (string, bool)

// Plan says where in a message type handler names stand, so that they can be
// rewritten without decoding the rest. It is immutable.
type Plan struct {
	children map[protowire.Number]*Plan
	handler  protowire.Number // Of runtime_handler in this message; 0: it has none.
	sandbox  bool             // Whether this message is a sandbox, its id in field 1.
}

// NewPlan returns the plan for a message type, nil when no handler name can
// occur in it.
func NewPlan(d protoreflect.MessageDescriptor) *Plan {
	return planOf(d, map[protoreflect.FullName]bool{})
}

// planOf follows message fields; a type within itself is cut, since CRI has
// none and an endless plan would be worse than a name left as it is.
func planOf(d protoreflect.MessageDescriptor, within map[protoreflect.FullName]bool) *Plan {
	if within[d.FullName()] {
		return nil
	}
	within[d.FullName()] = true
	defer delete(within, d.FullName())

	p := &Plan{children: map[protowire.Number]*Plan{}}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		switch {
		case f.Name() == "runtime_handler" && f.Kind() == protoreflect.StringKind:
			p.handler = f.Number()
			id := d.Fields().ByNumber(1)
			p.sandbox = id != nil && id.Name() == "id"
		case f.Message() != nil:
			if child := planOf(f.Message(), within); child != nil {
				p.children[f.Number()] = child
			}
		}
	}
	if p.handler == 0 && len(p.children) == 0 {
		return nil
	}
	return p
}

// Rewrite returns f with every handler name renamed, as a frame of its own; f is
// still the caller's to free. The name of a sandbox is asked for also when it
// is empty (the upstream's default); an empty name in an image spec stays. What
// comes before the first name that changes is not rewritten, so that an answer
// without one is f's own bytes.
func (p *Plan) Rewrite(f *Frame, rename Rename) (*Frame, error) {
	if p.handler != 0 {
		return p.rewriteWhole(f, rename)
	}
	size := f.Len() + f.Len()/8 + 64
	out := chunks{size: min(size, maxChunk)}
	walk := fields{rest: f.data}
	var renamed []byte // One field at a time.
	same, changed := 0, false
	for {
		field, err := walk.next()
		if err == nil && field != nil {
			renamed, err = p.appendField(renamed[:0], field, rename)
		}
		switch {
		case err != nil:
			out.frame().Free()
			return nil, err
		case field == nil && !changed:
			return f.Ref(), nil
		case field == nil:
			return out.frame(), nil
		case !changed && bytes.Equal(renamed, field):
			same += len(field)
			continue
		case !changed:
			changed = true
			out.done = make(mem.BufferSlice, 0, size/out.size+1)
			f.head(same, out.write)
		}
		out.write(renamed)
	}
}

// rewriteWhole rewrites a message that has a handler name itself. No answer of
// CRI has; its name is known only when all of it was read.
func (p *Plan) rewriteWhole(f *Frame, rename Rename) (*Frame, error) {
	src, free := f.contiguous()
	defer free()
	dst, err := p.append(nil, src, rename)
	if err != nil {
		return nil, err
	}
	return NewFrame(dst), nil
}

// append adds the message src to dst, renamed.
func (p *Plan) append(dst, src []byte, rename Rename) ([]byte, error) {
	var sandbox, handler []byte
	if p.sandbox {
		id, err := lastBytes(src, 1)
		if err != nil {
			return nil, err
		}
		sandbox = id
	}
	for len(src) > 0 {
		number, kind, n := protowire.ConsumeTag(src)
		if n < 0 {
			return nil, errMalformed
		}
		size := protowire.ConsumeFieldValue(number, kind, src[n:])
		if size < 0 {
			return nil, errMalformed
		}
		field := src[:n+size]
		src = src[n+size:]
		if number == p.handler && kind == protowire.BytesType {
			handler, _ = protowire.ConsumeBytes(field[n:])
			continue
		}
		var err error
		if dst, err = p.appendField(dst, field, rename); err != nil {
			return nil, err
		}
	}
	return p.appendHandler(dst, sandbox, handler, rename), nil
}

// appendField adds one whole field of this message, which is not the handler.
func (p *Plan) appendField(dst, field []byte, rename Rename) ([]byte, error) {
	number, kind, n := protowire.ConsumeTag(field)
	child := p.children[number]
	if kind != protowire.BytesType || child == nil {
		return append(dst, field...), nil
	}
	return child.appendNested(dst, field, n, rename)
}

// appendHandler puts the name last in its message: the order of fields means
// nothing in protobuf, and only there the last of a repeated name is known.
func (p *Plan) appendHandler(dst, sandbox, handler []byte, rename Rename) []byte {
	if p.handler == 0 || (!p.sandbox && len(handler) == 0) {
		return dst
	}
	name, renamed := rename(sandbox, handler)
	if !renamed && len(handler) == 0 || renamed && name == "" {
		return dst
	}
	dst = protowire.AppendTag(dst, p.handler, protowire.BytesType)
	if renamed {
		return protowire.AppendString(dst, name)
	}
	return protowire.AppendBytes(dst, handler)
}

// appendNested rewrites one length-delimited field whose tag is tagLen bytes
// long. The new length is known only afterwards: room for the old one is left,
// and the content moved in the rare case that the new one needs another size.
func (p *Plan) appendNested(dst, field []byte, tagLen int, rename Rename) ([]byte, error) {
	content, _ := protowire.ConsumeBytes(field[tagLen:])
	dst = append(dst, field[:tagLen]...)
	lengthAt := len(dst)
	dst = protowire.AppendVarint(dst, uint64(len(content)))
	contentAt := len(dst)
	dst, err := p.append(dst, content, rename)
	if err != nil {
		return nil, err
	}
	length := uint64(len(dst) - contentAt)
	room, needed := contentAt-lengthAt, protowire.SizeVarint(length)
	switch {
	case needed > room:
		dst = append(dst, make([]byte, needed-room)...)
		copy(dst[lengthAt+needed:], dst[contentAt:len(dst)-(needed-room)])
	case needed < room:
		copy(dst[lengthAt+needed:], dst[contentAt:])
		dst = dst[:len(dst)-(room-needed)]
	}
	protowire.AppendVarint(dst[:lengthAt], length)
	return dst, nil
}
