package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// checkTypes reports every key that Config does not know and every value of a wrong type, and cuts them out.
//
// go-toml's own strict mode is not enough for this: it stops at the first wrong type, gives some of them no place, takes keys in
// any letter case, takes whole numbers where a text is decoded, and takes one table where an array of tables is meant.
func (d *document) checkTypes() Problems {
	var found Problems
	reported := map[string]bool{}
	for _, n := range d.nodes {
		p, text := n.check()
		if text == "" {
			continue
		}
		d.cutOut(n)
		if key := p.String(); !reported[key] {
			reported[key] = true
			found = append(found, d.problem(n.offset, key, text))
		}
	}
	return found
}

// check returns the part of the node's path that is wrong, and why; or "".
func (n node) check() (path, string) {
	t := reflect.TypeFor[Config]()
	for i, name := range n.path {
		next := child(t, name)
		if next == nil {
			if wrong := mismatch(t, node{kind: containerOf(name)}); wrong != "" {
				return n.path[:i], wrong
			}
			return n.path[:i+1], unknown(t, n.path[:i+1])
		}
		t = next
	}
	return n.path, mismatch(t, n)
}

// child returns the type of one part below t; nil if there is none.
func child(t reflect.Type, name string) reflect.Type {
	switch {
	case t.Kind() == reflect.Pointer:
		return child(t.Elem(), name)
	case isText(t):
		return nil
	case t.Kind() == reflect.Slice && containerOf(name) == kindArray, t.Kind() == reflect.Map && containerOf(name) == kindTable:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		return fields(t)[name]
	default:
		return nil
	}
}

// containerOf returns the kind of value that has a part of this name.
func containerOf(name string) kind {
	if strings.HasPrefix(name, "[") {
		return kindArray
	}
	return kindTable
}

// fields returns the types of the keys of a struct, those of embedded structs among them.
func fields(t reflect.Type) map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("toml"), ","); name != "" {
			keys[name] = f.Type
		}
	}
	return keys
}

// mismatch returns why the node's value does not fit t, or "".
func mismatch(t reflect.Type, n node) string {
	want := kindTable
	switch {
	case t.Kind() == reflect.Pointer:
		return mismatch(t.Elem(), n)
	case isText(t):
		return textMismatch(t, n)
	case t.Kind() == reflect.String:
		want = kindString
	case t.Kind() == reflect.Bool:
		want = kindBool
	case t.Kind() == reflect.Int:
		want = kindInt
	case t.Kind() == reflect.Slice:
		want = kindArray
	}
	if n.kind != want {
		return fmt.Sprintf("is %s, must be %s", n.kind, want)
	}
	if want == kindInt {
		return intMismatch(n.value)
	}
	return ""
}

func intMismatch(value string) string {
	if _, err := strconv.ParseInt(value, 0, strconv.IntSize); err != nil {
		return fmt.Sprintf("%s is too large for a whole number, which has %d bits", value, strconv.IntSize)
	}
	return ""
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// textMismatch lets the type itself explain what it takes, for a bare number too: a duration without a unit is the usual slip.
func textMismatch(t reflect.Type, n node) string {
	if n.kind != kindArray && n.kind != kindTable {
		u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(t))
		if !ok {
			return "cannot be decoded"
		}
		if err := u.UnmarshalText([]byte(n.value)); err != nil {
			return err.Error()
		}
	}
	if n.kind != kindString {
		return fmt.Sprintf("is %s, must be %s", n.kind, kindString)
	}
	return ""
}

// unknown explains a key that the table t does not have.
func unknown(t reflect.Type, p path) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := p[len(p)-1]
	if _, ok := fields(reflect.TypeFor[PostStartHook]())[name]; ok && t == reflect.TypeFor[Hook]() {
		return "is not allowed in pre_stop, only in post_start: a stop waits for its hooks and no hook can prevent it"
	}
	known := fields(t)
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return "unknown key, known are: " + strings.Join(names, ", ")
}
