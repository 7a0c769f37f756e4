package configs

import (
	"bytes"
	"errors"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxDepth is where the reader stops to go deeper. No key of ours is half as deep, so what is left out is inside an unknown one.
const maxDepth = 32

// parse reads the places of all keys. This file is the only one that uses go-toml's unstable parser, which is the only way to
// learn the place of a key that decoded well. The error is the syntax error, if there is one.
func parse(name string, data []byte) (*document, *Problem) {
	d := &document{name: name, text: slices.Clip(slices.Clone(data)), places: map[string]int{}, gone: map[string]bool{}}
	r := reader{document: d, tables: map[string]int{}}
	r.parser.Reset(d.text)
	for r.parser.NextExpression() {
		r.expression(r.parser.Expression())
	}
	if err := r.parser.Error(); err != nil {
		return nil, syntaxError(d, &r.parser, err)
	}
	r.endSection(len(d.text))
	return d, nil
}

func syntaxError(d *document, parser *unstable.Parser, err error) *Problem {
	offset := len(d.text)
	if perr, ok := errors.AsType[*unstable.ParserError](err); ok {
		offset = int(parser.Range(perr.Highlight).Offset)
	}
	p := d.problem(offset, "", "syntax error: "+err.Error())
	return &p
}

// reader walks the expressions of a document.
type reader struct {
	*document

	parser unstable.Parser
	// table is the path that the last header opened, and section the first node of it.
	table   path
	section int
	// tables counts the elements of each array of tables.
	tables map[string]int
}

func (r *reader) expression(e *unstable.Node) {
	switch e.Kind {
	case unstable.Table, unstable.ArrayTable:
		r.header(e)
	case unstable.KeyValue:
		r.keyValue(r.table, e, false)
	default: // Comments are not kept.
	}
}

// header opens a table. All its nodes own the whole section, for the keys below a header without a meaning have none either.
func (r *reader) header(e *unstable.Node) {
	keys := keysOf(e)
	start := bytes.LastIndexByte(r.text[:keys[0].offset], '[')
	if e.Kind == unstable.ArrayTable {
		start--
	}
	r.endSection(start)
	r.section = len(r.nodes)
	r.table = nil
	for i, k := range keys {
		r.table = r.table.with(k.name)
		last := i == len(keys)-1
		count := r.tables[r.table.String()]
		if last && e.Kind == unstable.ArrayTable {
			r.add(node{path: r.table, offset: k.offset, kind: kindArray})
			r.tables[r.table.String()]++
			r.table = r.table.with(index(count))
		} else if count > 0 && !last {
			r.table = r.table.with(index(count - 1))
			continue
		}
		r.add(node{path: r.table, offset: k.offset, kind: kindTable})
	}
	for i := r.section; i < len(r.nodes); i++ {
		r.nodes[i].owner, r.nodes[i].cut = r.table, span{start, -1}
	}
	r.places[r.table.String()] = keys[len(keys)-1].offset
}

// endSection completes the nodes of the last header, whose section ends at offset to.
func (r *reader) endSection(to int) {
	for i := r.section; i < len(r.nodes); i++ {
		if r.nodes[i].cut.to == -1 {
			r.nodes[i].cut.to = to
		}
	}
}

// keyValue adds `a.b = value`, which stands in the table. Inside an inline table its text ends behind the next comma, so that
// what is left when it is cut out can be parsed.
func (r *reader) keyValue(table path, e *unstable.Node, inline bool) {
	at := span{int(e.Raw.Offset), int(e.Raw.Offset + e.Raw.Length)}
	if inline {
		at.to += comma(r.text[at.to:])
	}
	keys := keysOf(e)
	p := table
	for _, k := range keys {
		p = p.with(k.name)
	}
	n := node{owner: p, cut: at}
	for i, k := range keys[:len(keys)-1] {
		n.path, n.offset, n.kind = p[:len(table)+i+1], k.offset, kindTable
		r.add(n)
	}
	n.path, n.offset = p, keys[len(keys)-1].offset
	r.value(n, e.Value())
}

// comma returns how many bytes it is to the end of the comma that follows, and 0 if something else does.
func comma(text []byte) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ' ', '\t', '\r', '\n':
		case '#':
			i += max(bytes.IndexByte(text[i:], '\n'), 0)
		case ',':
			return i + 1
		default:
			return 0
		}
	}
	return 0
}

// value adds a node and what is inside of its value.
func (r *reader) value(n node, v *unstable.Node) {
	n.kind = kindOf(v.Kind)
	n.value = string(v.Data)
	r.add(n)
	if len(n.path) >= maxDepth {
		return
	}
	for i, it := 0, v.Children(); it.Next(); i++ {
		child := it.Node()
		if v.Kind == unstable.InlineTable {
			r.keyValue(n.path, child, true)
			continue
		}
		element := node{path: n.path.with(index(i)), offset: n.offset, owner: n.owner, cut: n.cut}
		if child.Raw.Length > 0 {
			element.offset = int(child.Raw.Offset)
		}
		r.value(element, child)
	}
}

func (r *reader) add(n node) {
	r.nodes = append(r.nodes, n)
	if _, ok := r.places[n.path.String()]; !ok {
		r.places[n.path.String()] = n.offset
	}
}

// key is one part of a dotted key.
type key struct {
	name   string
	offset int
}

func keysOf(e *unstable.Node) []key {
	var keys []key
	for it := e.Key(); it.Next() && len(keys) < maxDepth; {
		keys = append(keys, key{quoted(string(it.Node().Data)), int(it.Node().Raw.Offset)})
	}
	return keys
}

func kindOf(k unstable.Kind) kind {
	switch k {
	case unstable.Array:
		return kindArray
	case unstable.InlineTable:
		return kindTable
	case unstable.String:
		return kindString
	case unstable.Bool:
		return kindBool
	case unstable.Integer:
		return kindInt
	case unstable.Float:
		return kindFloat
	default:
		return kindTime
	}
}
