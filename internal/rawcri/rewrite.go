package rawcri

import (
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

// Rewrite returns f with every handler name renamed, as a new frame; f is
// still the caller's to free. The name of a sandbox is asked for also when it
// is empty (the upstream's default); an empty name in an image spec stays.
func (p *Plan) Rewrite(f *Frame, rename Rename) (*Frame, error) {
	src, free := f.contiguous()
	defer free()
	pool := mem.DefaultBufferPool()
	dst := pool.Get(len(src) + len(src)/8 + 64)
	out, err := p.append((*dst)[:0], src, rename)
	if err != nil {
		pool.Put(dst)
		return nil, err
	}
	*dst = out
	return &Frame{data: mem.BufferSlice{mem.NewBuffer(dst, pool)}}, nil
}

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
		child := p.children[number]
		switch {
		case kind != protowire.BytesType || (child == nil && number != p.handler):
			dst = append(dst, field...)
		case number == p.handler:
			handler, _ = protowire.ConsumeBytes(field[n:])
		default:
			var err error
			if dst, err = child.appendNested(dst, field, n, rename); err != nil {
				return nil, err
			}
		}
	}
	return p.appendHandler(dst, sandbox, handler, rename), nil
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
