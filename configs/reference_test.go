package configs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The reference stands between these lines of the document; what is above them
// is written by hand.
const (
	referenceBegin = "<!-- begin: written by make reference -->\n"
	referenceEnd   = "<!-- end: written by make reference -->\n"
)

// TestReference: docs/configuration.md says of each key what the types, the
// defaults, the validator and NeedsRestart say, and explains it as config.toml
// does. With -update it is written anew.
func TestReference(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "docs", "configuration.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, begins := strings.Cut(string(text), referenceBegin)
	_, tail, ends := strings.Cut(rest, referenceEnd)
	if !begins || !ends {
		t.Fatalf("%s lacks one of the lines\n%s%s", file, referenceBegin, referenceEnd)
	}
	want := head + referenceBegin + newManual(t).write() + referenceEnd + tail
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("%s is not up to date, run: make reference\n-want +got:\n%s", file, diff)
	}
}

// TestReferenceHasEveryKey: no table and no key of the types is left out.
func TestReferenceHasEveryKey(t *testing.T) {
	t.Parallel()
	var got []string
	for _, table := range newManual(t).tables {
		for _, k := range table.keys {
			got = append(got, table.path.with(k.path...).String())
		}
	}
	for _, key := range []string{
		"version", "server.listen", "backends.<name>.last_known_ttl", "handlers.<name>.runtime", "handlers.<name>.images.require_digest",
		"handlers.<name>.hooks.post_start.http_get.headers", "handlers.<name>.hooks.post_start.on_failure",
		"handlers.<name>.hooks.pre_stop.match.labels", "handlers.<name>.service_env.on_unavailable",
	} {
		if !slices.Contains(got, key) {
			t.Errorf("%s is not in the reference", key)
		}
	}
	if len(got) < 60 {
		t.Errorf("only %d keys: %q", len(got), got)
	}
}

// manual is what there is to say of all tables.
type manual struct {
	t           *testing.T
	tables      []*manualTable
	explained   map[string]string
	least       *Config // The shortest configuration with everything in it, see leastConfig.
	leastSource string
}

// manualTable is one table of the file.
type manualTable struct {
	path  path // Without names and numbers: handlers.<name>.hooks.pre_stop.
	array bool
	keys  []manualKey
}

// manualKey is one key, or the last part of a dotted one.
type manualKey struct {
	path path // Below the table.
	kind reflect.Type
}

func newManual(t *testing.T) *manual {
	t.Helper()
	r := &manual{t: t, explained: explanations(string(DefaultTOML())), leastSource: leastConfig}
	r.least = mustParse(t, r.leastSource)
	r.addTable(reflect.TypeFor[Config](), nil, false)
	return r
}

// addTable adds a table and then those inside it.
func (r *manual) addTable(of reflect.Type, at path, array bool) {
	table := &manualTable{path: at, array: array}
	r.tables = append(r.tables, table)
	r.addKeys(table, of, nil)
	r.tables = slices.DeleteFunc(r.tables, func(t *manualTable) bool { return len(t.keys) == 0 })
}

func (r *manual) addKeys(table *manualTable, of reflect.Type, prefix path) {
	var inner []func()
	for _, f := range reflect.VisibleFields(of) {
		name, option, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" {
			continue
		}
		below, inline := table.path.with(name), strings.Contains(option, "inline") || len(prefix) > 0
		switch kind := f.Type; {
		case inline && isTable(kind):
			r.addKeys(table, tableOf(kind), prefix.with(name))
		case isTable(kind):
			inner = append(inner, func() { r.addTable(kind, below, false) })
		case kind.Kind() == reflect.Map && isTable(kind.Elem()):
			inner = append(inner, func() { r.addTable(kind.Elem(), below.with("<name>"), false) })
		case kind.Kind() == reflect.Slice && isTable(kind.Elem()) && !inline:
			inner = append(inner, func() { r.addTable(kind.Elem(), below, true) })
		default:
			table.keys = append(table.keys, manualKey{prefix.with(name), kind})
		}
	}
	for _, add := range inner {
		add()
	}
}

// isTable tells whether values of a type are tables with keys of ours.
func isTable(t reflect.Type) bool { return tableOf(t).Kind() == reflect.Struct && !isText(t) }

func tableOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// explanations returns the comments above the headers and the keys of the
// shipped file, its examples included. The first one of a key counts.
func explanations(shipped string) map[string]string {
	found := map[string]string{}
	var words []string
	var table string
	for line := range strings.Lines(shipped) {
		line = strings.TrimRight(line, "\n")
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			words = append(words, comment)
			continue
		}
		key, _, isKey := strings.Cut(strings.TrimPrefix(line, "#"), " = ")
		switch {
		case strings.HasPrefix(key, "["):
			table = unnamed(strings.Trim(key, "[]"))
			key = table
		case !isKey:
			words = nil
			continue
		case table != "":
			key = table + "." + key
		}
		if _, again := found[key]; !again && len(words) > 0 {
			found[key] = strings.Join(words, " ")
		}
		words = nil
	}
	return found
}

// unnamed replaces the name of a backend or a handler.
func unnamed(table string) string {
	return regexp.MustCompile(`^(backends|handlers)\.\w+`).ReplaceAllString(table, "$1.<name>")
}

// explain returns the comment of a table or a key. Keys that hooks of both
// events have are explained at one of them.
func (r *manual) explain(p path) string {
	for _, name := range []string{"post_start", "pre_stop", p.String()} {
		other := regexp.MustCompile(`\b(post_start|pre_stop)\.`).ReplaceAllString(p.String(), name+".")
		if text, ok := r.explained[other]; ok {
			return text
		}
	}
	return ""
}

func (r *manual) write() string {
	var b strings.Builder
	var before []string
	for _, table := range r.tables {
		r.writeHeader(&b, table)
		rows := r.rows(table)
		if left := without(before, rows); len(left)+len(rows) == len(before) {
			fmt.Fprintf(&b, "The same keys, without %s.\n", strings.Join(left, " and "))
		} else {
			b.WriteString("| key | value | default | a change needs a | |\n|---|---|---|---|---|\n" + strings.Join(rows, ""))
		}
		before = rows
	}
	return b.String()
}

// without returns the keys of the rows that only before has.
func without(before, rows []string) (keys []string) {
	for _, row := range before {
		if !slices.Contains(rows, row) {
			keys = append(keys, strings.Split(row, " ")[1])
		}
	}
	return keys
}

func (r *manual) writeHeader(b *strings.Builder, table *manualTable) {
	header := "[" + table.path.String() + "]"
	if table.array {
		header = "[" + header + "]"
	}
	if len(table.path) == 0 {
		header = "Above all tables"
	} else {
		header = "`" + header + "`"
	}
	fmt.Fprintf(b, "\n### %s\n\n", header)
	if text := r.explained[table.path.String()]; text != "" {
		fmt.Fprintf(b, "%s\n\n", markdown(text))
	}
}

// rows are the lines of the keys of a table.
func (r *manual) rows(table *manualTable) (rows []string) {
	for _, k := range table.keys {
		p := table.path.with(k.path...)
		text := r.explain(p)
		if text == "" {
			r.t.Errorf("config.toml does not explain %s", p)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", k.path, r.value(p, k.kind), r.defaultOf(p, k), r.change(p), markdown(text)))
	}
	return rows
}

// markdown marks what is typed as it stands, and keeps the rest from being markup.
func markdown(text string) string {
	typed := regexp.MustCompile(`"[^"]*"|\[[a-z][^\]]*\]|\bcri-proxy\.io/[a-z-]+|\b[a-z]+(?:_[a-z]+)+\b|\{[^}]*\}`)
	var b strings.Builder
	from := 0
	for _, at := range typed.FindAllStringIndex(text, -1) {
		b.WriteString(strings.ReplaceAll(text[from:at[0]], "*", `\*`) + "`" + text[at[0]:at[1]] + "`")
		from = at[1]
	}
	b.WriteString(strings.ReplaceAll(text[from:], "*", `\*`))
	return strings.ReplaceAll(b.String(), "|", `\|`)
}
