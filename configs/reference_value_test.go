package configs

import (
	"errors"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// leastConfig has every table there is, and in it nothing but what is required.
const leastConfig = `
version = 1
default_handler = "h"
[backends.b]
endpoint = "/b"
[handlers.h]
backend = "b"
[[handlers.h.hooks.post_start]]
name = "exec"
exec.command = ["/x"]
[[handlers.h.hooks.post_start]]
name = "http_get"
http_get.port = 1
[[handlers.h.hooks.post_start]]
name = "sleep"
sleep.seconds = 1
[[handlers.h.hooks.pre_stop]]
name = "exec"
exec.command = ["/x"]
[[handlers.h.hooks.pre_stop]]
name = "http_get"
http_get.port = 1
[[handlers.h.hooks.pre_stop]]
name = "sleep"
sleep.seconds = 1
`

// TestLeastConfigIsTheLeast: without any of its keys it is refused.
func TestLeastConfigIsTheLeast(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(leastConfig, "\n")
	for i, line := range lines {
		if !strings.Contains(line, " = ") {
			continue
		}
		without := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
		if _, err := Parse("in.toml", []byte(without)); err == nil {
			t.Errorf("without line %d it is accepted: %s", i+1, line)
		}
	}
}

// named returns the path of a key in leastConfig. Of the hooks it is the one
// that has the key's action.
func named(p path) path {
	var made path
	for i, part := range p {
		switch {
		case part == "<name>":
			part = p[i-1][:1]
		case i > 0 && (p[i-1] == "post_start" || p[i-1] == "pre_stop"):
			number := map[string]int{"exec": 0, "http_get": 1, "sleep": 2}[part]
			made = made.with(index(number))
		}
		made = made.with(part)
	}
	return made
}

// defaultOf returns what a key means when it is left out, or that it must not be.
func (r *manual) defaultOf(p path, k manualKey) string {
	if p = named(p); r.least.source.mentions(p) {
		if len(k.path) > 1 {
			return "required in `" + k.path[0] + "`"
		}
		return "required"
	}
	value := at(reflect.ValueOf(r.least).Elem(), p)
	if value.Kind() == reflect.Pointer {
		return "–" // There is no value that means the same.
	}
	if value.Kind() == reflect.Slice {
		return "`[]`"
	}
	if value.Kind() == reflect.Map {
		return "`{}`"
	}
	text, err := toml.Marshal(map[string]any{"x": value.Interface()})
	if err != nil {
		r.t.Fatal(err)
	}
	return "`" + strings.NewReplacer("x = ", "", "'", `"`, "\n", "").Replace(string(text)) + "`"
}

// at returns the value of a key.
func at(v reflect.Value, p path) reflect.Value {
	for _, part := range p {
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		switch v.Kind() {
		case reflect.Slice:
			number, err := strconv.Atoi(strings.Trim(part, "[]"))
			if err != nil {
				return reflect.Value{}
			}
			v = v.Index(number)
		case reflect.Map:
			v = v.MapIndex(reflect.ValueOf(part))
		default:
			v = v.FieldByIndex(fieldOf(v.Type(), part))
		}
	}
	return v
}

func fieldOf(t reflect.Type, key string) []int {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("toml"), ","); name == key {
			return f.Index
		}
	}
	return nil
}

// value says what a key takes: its type, and what the validator wants of it.
func (r *manual) value(p path, kind reflect.Type) string {
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	rule := r.rule(named(p), kind)
	name := typeName(kind)
	switch {
	case rule == "":
		return name
	case name == "string" || kind == reflect.TypeFor[FileMode]():
		return rule
	case kind.Kind() == reflect.Slice:
		return "list, each: " + rule
	default:
		return name + ", " + rule
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t.Kind() == reflect.Int:
		return "whole number"
	case t.Kind() == reflect.Bool:
		return "`true` or `false`"
	case t.Kind() == reflect.Map:
		return "table of strings"
	case t.Kind() == reflect.Slice && isTable(t.Elem()):
		return "list of tables"
	case t.Kind() == reflect.Slice:
		return "list of strings"
	default:
		return "string"
	}
}

// rule has the validator say what it wants, by giving it what it cannot want.
func (r *manual) rule(p path, kind reflect.Type) string {
	wrong := wrongValue(kind)
	if wrong == nil {
		return ""
	}
	var tree map[string]any
	if err := toml.Unmarshal([]byte(r.leastSource), &tree); err != nil {
		r.t.Fatal(err)
	}
	set(tree, p, wrong)
	text, err := toml.Marshal(tree)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = Parse("in.toml", text)
	problems, _ := errors.AsType[Problems](err)
	for _, problem := range problems {
		if problem.Key == p.String() || problem.Key == p.with("[0]").String() {
			return wanted(problem.Text)
		}
	}
	return ""
}

func wrongValue(kind reflect.Type) any {
	switch {
	case kind == reflect.TypeFor[Duration]():
		return "-1s"
	case kind.Kind() == reflect.String || isText(kind):
		return "?"
	case kind.Kind() == reflect.Int:
		return -1
	case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.String:
		return []string{"?"}
	default:
		return nil
	}
}

// set sets a key in a tree of tables, and makes those that are missing.
func set(tree map[string]any, p path, value any) {
	for len(p) > 1 {
		if number, err := strconv.Atoi(strings.Trim(p[1], "[]")); err == nil {
			tree, p = tree[p[0]].([]any)[number].(map[string]any), p[2:] //nolint:errcheck // A panic tells as much.
			continue
		}
		if _, ok := tree[p[0]]; !ok {
			tree[p[0]] = map[string]any{}
		}
		tree, p = tree[p[0]].(map[string]any), p[1:] //nolint:errcheck // A panic tells as much.
	}
	tree[p[0]] = value
}

// wanted returns the part of a problem that says what is allowed.
func wanted(problem string) string {
	for _, rule := range []struct{ pattern, text string }{
		{`must be one of: (.*)`, "$1"},
		{`is not an absolute unix socket`, "unix socket"},
		{`is not there, name one of (\[.*\]):.*`, "one of $1"},
		{`is not a file mode, write (.*)`, "$1"},
		{`is not a valid name, use (.*)`, "$1"},
		{`must be an? (absolute path)`, "$1"},
		{`must be (\d+)$`, "only $1"},
		{`must be (.*)`, "$1"},
		{`must (begin with .*)`, "must $1"},
		{`must (not be negative)`, "not negative"},
	} {
		expression := regexp.MustCompile(rule.pattern)
		found := expression.FindStringSubmatchIndex(problem)
		if found == nil {
			continue
		}
		text := string(expression.ExpandString(nil, rule.text, problem, found))
		if strings.HasPrefix(rule.pattern, "must be one of") {
			return "`\"" + strings.ReplaceAll(text, ", ", "\"`, `\"") + "\"`"
		}
		return markdown(text)
	}
	return ""
}

// change asks NeedsRestart whether a running daemon takes a key over.
func (r *manual) change(p path) string {
	changed := *r.least
	if field := at(reflect.ValueOf(&changed).Elem(), named(p)); field.CanSet() && len(p) <= 2 && p[0] != "backends" && p[0] != "handlers" {
		other := reflect.New(field.Type()).Elem()
		switch field.Kind() {
		case reflect.String:
			other.SetString(field.String() + "x")
		case reflect.Int:
			other.SetInt(field.Int() + 1)
		case reflect.Uint32:
			other.SetUint(field.Uint() + 1)
		default: // Its zero is another value.
		}
		field.Set(other)
		if field.IsZero() && reflect.DeepEqual(changed, *r.least) {
			r.t.Errorf("%s was not changed", p)
		}
	}
	for _, problem := range changed.NeedsRestart(r.least) {
		if problem.Key == p.String() {
			return "restart"
		}
		r.t.Errorf("a change of %s is refused for %s", p, problem)
	}
	return "reload"
}

// TestRules: what the reference says of values is what the validator says.
func TestRules(t *testing.T) {
	t.Parallel()
	r := newManual(t)
	for key, want := range map[string]string{
		"server.listen":                                  "unix socket",
		"server.socket_mode":                             "octal digits from `\"0000\"` to `\"0777\"`",
		"server.shutdown_timeout":                        "duration, more than 0s",
		"log.format":                                     "`\"text\"`, `\"json\"`",
		"kubernetes.kubeconfig":                          "absolute path",
		"backends.<name>.last_known_ttl":                 "duration, not negative",
		"handlers.<name>.backend":                        "one of `[backends.*]`",
		"handlers.<name>.runtime":                        "string",
		"handlers.<name>.images.auth_files":              "list, each: absolute path",
		"handlers.<name>.hooks.post_start.http_get.port": "whole number, from 1 to 65535",
		"handlers.<name>.hooks.post_start.wait":          "`true` or `false`",
	} {
		p := path(strings.Split(key, "."))
		field := at(reflect.ValueOf(r.least).Elem(), named(p))
		if got := r.value(p, field.Type()); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	for key, want := range map[string][2]string{
		"server.listen":      {"`\"unix:///run/cri-proxy/cri-proxy.sock\"`", "restart"},
		"server.socket_mode": {"`\"0660\"`", "restart"},
		"log.level":          {"`\"info\"`", "reload"},
		"default_handler":    {"required", "reload"},
		"handlers.<name>.hooks.pre_stop.attempts": {"`1`", "reload"},
	} {
		p := path(strings.Split(key, "."))
		if got := [2]string{r.defaultOf(p, manualKey{path: p[len(p)-1:]}), r.change(p)}; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
