package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/imageservice"
)

const adminAPI = "docs/admin-api.md"

// TestAdminAPIKeys: the document has exactly the keys of the requests and the
// answers, with their types.
func TestAdminAPIKeys(t *testing.T) {
	t.Parallel()
	documented := map[string][]string{}
	tables := regexp.MustCompile(`<!-- keys: (\S+) -->\n\n\| key \| type \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)`)
	for _, table := range tables.FindAllStringSubmatch(document(t, adminAPI), -1) {
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(table[2], -1) {
			documented[table[1]] = append(documented[table[1]], row[1]+": "+row[2])
		}
	}
	typed := map[string][]string{}
	for _, of := range []reflect.Type{
		reflect.TypeFor[report](), reflect.TypeFor[hooks.Report](), reflect.TypeFor[imageservice.Listing](),
		reflect.TypeFor[imageservice.PullRequest](), reflect.TypeFor[imageservice.CopyRequest](), reflect.TypeFor[imageservice.Step](),
	} {
		typed[strings.TrimPrefix(of.String(), "main.")] = jsonKeys(of, "")
	}
	if diff := cmp.Diff(typed, documented); diff != "" {
		t.Errorf("%s is not as the types (-types +document):\n%s", adminAPI, diff)
	}
}

// jsonKeys returns "path: type" for each key of a struct and of those below it.
func jsonKeys(of reflect.Type, prefix string) (all []string) {
	for _, field := range reflect.VisibleFields(of) {
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind, below, suffix := jsonType(field.Type)
		if option != "" {
			kind += ", optional"
		}
		all = append(all, prefix+name+": "+kind)
		if below != nil {
			all = append(all, jsonKeys(below, prefix+name+suffix+".")...)
		}
	}
	return all
}

// jsonType returns what a type is in JSON, and the struct that is in it.
func jsonType(of reflect.Type) (name string, below reflect.Type, suffix string) {
	switch {
	case of == reflect.TypeFor[time.Time]():
		return "time", nil, ""
	case of.Kind() == reflect.Pointer:
		return jsonType(of.Elem())
	case of.Kind() == reflect.Struct:
		return "object", of, ""
	case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct:
		return "list", of.Elem(), "[]"
	case of.Kind() == reflect.Slice:
		return "list of strings", nil, ""
	case of.Kind() == reflect.Bool:
		return "boolean", nil, ""
	case of.Kind() == reflect.Float64:
		return "number", nil, ""
	case of.Kind() == reflect.String:
		return "string", nil, ""
	default:
		return "integer", nil, ""
	}
}

// adminRoutes returns the document's routes, and the status codes of each.
func adminRoutes(t *testing.T) map[string][]int {
	t.Helper()
	routes := map[string][]int{}
	for section := range strings.SplitSeq(document(t, adminAPI), "\n### ") {
		heading, text, _ := strings.Cut(section, "\n")
		names := []string{heading}
		if heading == "What both answer" {
			names = []string{"POST /v1/images/pull", "POST /v1/images/copy"}
		} else if !regexp.MustCompile(`^[A-Z]+ /`).MatchString(heading) {
			continue
		}
		for _, row := range regexp.MustCompile(`(?m)^\| (\d{3}) \|`).FindAllStringSubmatch(text, -1) {
			code, err := strconv.Atoi(row[1])
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				routes[name] = append(routes[name], code)
			}
		}
	}
	return routes
}

// TestAdminAPIRoutes: each pattern that is registered is in the document, and
// nothing else is.
func TestAdminAPIRoutes(t *testing.T) {
	t.Parallel()
	documented, registered := adminRoutes(t), map[string]bool{}
	for _, folder := range []string{".", "../../hooks", "../../imageservice", "../../internal/admin", "../../handlers/serviceenv"} {
		for _, pattern := range patternsIn(t, folder) {
			registered[pattern] = true
		}
	}
	for pattern := range registered {
		if _, ok := documented[pattern]; !ok && !leads(pattern, documented) {
			t.Errorf("%s does not have %s", adminAPI, pattern)
		}
	}
	for route := range documented {
		_, path, _ := strings.Cut(route, " ")
		if !registered[route] && !registered[path] {
			t.Errorf("%s has %s, which is not registered", adminAPI, route)
		}
	}
}

// leads tells whether a pattern without a method is only the way to routes that
// are documented, or below one.
func leads(pattern string, documented map[string][]int) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(documented)), func(route string) bool {
		_, path, _ := strings.Cut(route, " ")
		return strings.HasPrefix(pattern, "/") && (strings.HasPrefix(path, pattern) || strings.HasSuffix(path, "/") && strings.HasPrefix(pattern, path))
	})
}

// patternsIn returns the texts that a folder's code hands to Handle and HandleFunc.
func patternsIn(t *testing.T, folder string) (patterns []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				patterns = append(patterns, patternOf(call)...)
			}
			return true
		})
	}
	return patterns
}

func patternOf(call *ast.CallExpr) []string {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "Handle" && selector.Sel.Name != "HandleFunc" || len(call.Args) != 2 {
		return nil
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		return nil
	}
	pattern, err := strconv.Unquote(literal.Value)
	if err != nil {
		return nil
	}
	return []string{pattern}
}

// asked is one request to the admin socket.
type asked struct {
	route string // As in the document.
	path  string
	body  string
	code  int
	into  any // What an answer of JSON is, to the last key.
}

// TestAdminAPIAnswers: each route gives each of the codes that the document has,
// in the form that it says.
func TestAdminAPIAnswers(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("exit", "4"), `on_failure = "ignore"`))
	_, container := p.started("runc")
	id := p.delivery(journal.PostStart, journal.Failed).ID
	large := `{"image":"` + strings.Repeat("a", 70_000) + `"}`
	requests := []asked{
		{"GET /livez", "/livez", "", 200, nil},
		{"GET /readyz", "/readyz", "", 200, nil},
		{"GET /metrics", "/metrics", "", 200, nil},
		{"GET /debug/pprof/", "/debug/pprof/", "", 200, nil},
		{"GET /v1/status", "/v1/status", "", 200, new(report)},
		{"GET /v1/hooks", "/v1/hooks", "", 200, new(hooks.Report)},
		{"GET /v1/hooks/{id}", "/v1/hooks/" + id, "", 200, new(hooks.Entry)},
		{"GET /v1/hooks/{id}", "/v1/hooks/none", "", 404, nil},
		{"POST /v1/hooks/{id}/retry", "/v1/hooks/none/retry", "", 404, nil},
		{"POST /v1/hooks/{id}/retry", "/v1/hooks/" + id + "/retry", "", 204, nil},
		{"GET /v1/images", "/v1/images", "", 200, new(imageservice.Listing)},
		{"GET /v1/images", "/v1/images?handler=kata", "", 404, nil},
	}
	for _, what := range []string{"pull", "copy"} {
		route := "POST /v1/images/" + what
		handlers := map[string]string{"pull": `"handler":"%s"`, "copy": `"from":"%[1]s","to":"%[1]s"`}[what]
		requests = append(
			requests,
			asked{route, "/v1/images/" + what, "{" + fmt.Sprintf(handlers, "runc") + `,"image":"app","dryRun":true}`, 200, new(imageservice.Step)},
			asked{route, "/v1/images/" + what, `{"image":"app","force":true}`, 400, nil},
			asked{route, "/v1/images/" + what, "{" + fmt.Sprintf(handlers, "kata") + `,"image":"app"}`, 404, nil},
			asked{route, "/v1/images/" + what, large, 413, nil},
		)
	}
	got := map[string][]int{}
	ask := func(a asked) {
		p.ask(a)
		got[a.route] = append(got[a.route], a.code)
	}
	for _, a := range requests {
		ask(a)
	}
	executed(t, alpha, 2)
	p.delivery(journal.PostStart, journal.Failed)
	if err := p.stopContainer(container, 1); err != nil {
		t.Fatal(err)
	}
	ask(asked{"POST /v1/hooks/{id}/retry", "/v1/hooks/" + id + "/retry", "", 409, nil})
	ask(asked{"DELETE /v1/hooks/{id}", "/v1/hooks/" + id, "", 204, nil})
	ask(asked{"DELETE /v1/hooks/{id}", "/v1/hooks/" + id, "", 404, nil})
	got["DELETE /v1/hooks/{id}"] = append(got["DELETE /v1/hooks/{id}"], 409) // It needs a delivery to end between two reads of it.
	alpha.Stop()
	eventually(t, "the backend is away", func() bool { return !p.daemon.backends().Default().Up() })
	ask(asked{"GET /readyz", "/readyz", "", 503, nil})
	if diff := cmp.Diff(adminRoutes(t), got, cmp.Transformer("set", setOf)); diff != "" {
		t.Errorf("the codes of %s (-document +answers):\n%s", adminAPI, diff)
	}
	for path, code := range map[string]int{"PUT /v1/status": 405, "PUT /v1/hooks": 405, "GET /v1/images/pull": 405, "GET /v2/status": 404, "GET /v1/none": 404} {
		method, path, _ := strings.Cut(path, " ")
		p.ask(asked{method + " ", path, "", code, nil})
	}
}

func setOf(codes []int) map[int]bool {
	set := map[int]bool{}
	for _, code := range codes {
		set[code] = true
	}
	return set
}

// ask sends a request and looks at the code and the form of the answer.
func (p *proxy) ask(a asked) {
	p.t.Helper()
	method, _, _ := strings.Cut(a.route, " ")
	request, err := http.NewRequestWithContext(p.t.Context(), method, "http://cri-proxy"+a.path, strings.NewReader(a.body))
	if err != nil {
		p.t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.dir, "a"))
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		p.t.Fatal(err)
	}
	if response.StatusCode != a.code {
		p.t.Errorf("%s %s: %d, want %d: %.200s", method, a.path, response.StatusCode, a.code, body)
	}
	p.wantForm(a, response.Header.Get("Content-Type"), body)
}

func (p *proxy) wantForm(a asked, form string, body []byte) {
	p.t.Helper()
	want := map[bool]string{true: "application/json", false: "application/x-ndjson"}[!strings.HasPrefix(a.route, "POST")]
	switch {
	case a.code >= http.StatusBadRequest:
		if form != "text/plain; charset=utf-8" || bytes.Count(body, []byte("\n")) != 1 {
			p.t.Errorf("%s: an error as %s: %.200q", a.path, form, body)
		}
	case a.into != nil:
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(a.into); err != nil || form != want || bytes.Contains(body, []byte(":null")) {
			p.t.Errorf("%s: %v, as %s, want %s: %.200s", a.path, err, form, want, body)
		}
	}
}
