package configs

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// document is the text of one file and where each key stands in it.
type document struct {
	name string
	// text is what is decoded: the file, minus what was cut out of it.
	text []byte
	// nodes are all keys, headers and array elements in file order; a dotted key gives one node for each part.
	nodes []node
	// places are the offsets by path. A table's own header wins over an earlier mention of it.
	places map[string]int
	// gone are the paths whose value was cut out, so that nothing more is to be said about it.
	gone map[string]bool
}

// node is one place in a document that says something about one path.
type node struct {
	path path
	// offset is where the key begins, or the value of an array element.
	offset int
	kind   kind
	// value is the scalar's text, without quotes.
	value string
	// owner is the path whose text is cut out when the value is wrong, and cut the range of that text.
	owner path
	cut   span
}

// span is a range of bytes.
type span struct{ from, to int }

// kind is what a value is, in words.
type kind string

const (
	kindString kind = "a string"
	kindInt    kind = "a whole number"
	kindFloat  kind = "a fractional number"
	kindBool   kind = "true or false"
	kindTime   kind = "a date or time"
	kindArray  kind = "an array"
	kindTable  kind = "a table"
)

// path is a key in parts; an element of an array is a part of its own such as [0], and a name that is not a bare key is quoted.
type path []string

func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		if i > 0 && s[0] != '[' {
			b.WriteByte('.')
		}
		b.WriteString(s)
	}
	return b.String()
}

// with returns a longer copy, so that two children of one path never share memory.
func (p path) with(parts ...string) path {
	return append(slices.Clone(p), parts...)
}

// index returns an array index as a part of a path.
func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// quoted returns a name as a part of a path.
func quoted(name string) string {
	bare := func(c rune) bool {
		return c == '-' || c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
	}
	if name != "" && strings.TrimFunc(name, bare) == "" {
		return name
	}
	return strconv.Quote(name)
}

// mentions tells whether the document says anything about the path, right or wrong.
func (d *document) mentions(p path) bool {
	_, ok := d.places[p.String()]
	return ok
}

// has tells whether the document gives the path a value that could be decoded.
func (d *document) has(p path) bool {
	return d.mentions(p) && !d.lost(p)
}

// mentionsBelow tells whether the document says anything about a key inside the table at the path.
func (d *document) mentionsBelow(p path) bool {
	return slices.ContainsFunc(d.nodes, func(n node) bool {
		return len(n.path) > len(p) && slices.Equal(n.path[:len(p)], p)
	})
}

// lost tells whether the value at the path, or of a table around it, was cut out.
func (d *document) lost(p path) bool {
	for i := 1; i <= len(p); i++ {
		if d.gone[p[:i].String()] {
			return true
		}
	}
	return false
}

// cutOut blanks the text of a node, so that the rest keeps its places.
func (d *document) cutOut(n node) {
	d.gone[n.owner.String()] = true
	for i := n.cut.from; i < n.cut.to; i++ {
		if d.text[i] != '\n' {
			d.text[i] = ' '
		}
	}
}

// at returns the problem of a path: at its own place, or where the innermost table around it begins.
func (d *document) at(p path, text string) Problem {
	for i := len(p); i > 0; i-- {
		if offset, ok := d.places[p[:i].String()]; ok {
			return d.problem(offset, p.String(), text)
		}
	}
	return d.problem(0, p.String(), text)
}

func (d *document) problem(offset int, key, text string) Problem {
	before := d.text[:offset]
	return Problem{
		File:   d.name,
		Line:   bytes.Count(before, []byte{'\n'}) + 1,
		Column: offset - bytes.LastIndexByte(before, '\n'),
		Key:    key,
		Text:   text,
	}
}

// offset is the reverse of the place of a problem.
func (d *document) offset(line, column int) int {
	start := 0
	for range line - 1 {
		start += bytes.IndexByte(d.text[start:], '\n') + 1
	}
	return start + column - 1
}

// expressionAt returns the header or the top-level key that begins at offset, if its text is not cut out yet.
func (d *document) expressionAt(offset int) (node, bool) {
	for _, n := range d.nodes {
		if n.cut.from <= offset && offset <= n.offset && offset < n.cut.to && n.path.String() == n.owner.String() {
			return n, !d.gone[n.path.String()]
		}
	}
	return node{}, false
}
