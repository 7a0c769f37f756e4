package internal_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/cri-proxy/cri-proxy"

// room is a folder and what its production code may import directly: of our own
// rooms, by folder, and of the closed libraries, by prefix.
type room struct {
	folder  string
	own     []string
	foreign []string
}

// The libraries that only some rooms may know. Everything else is open to all.
func closedLibraries() []string {
	return []string{
		"github.com/pelletier/", "github.com/containerd", "github.com/spf13/",
		"go.etcd.io/", "google.golang.org/", "k8s.io/",
	}
}

// rooms is the table of CONTRIBUTING.md. cmd/cri-proxy is not in it: it wires
// the rest and may import everything.
func rooms() []room {
	const (
		bbolt      = "go.etcd.io/bbolt"
		containerd = "github.com/containerd/"
		criAPI     = "k8s.io/cri-api"
		grpc       = "google.golang.org/grpc"
		kubelet    = "k8s.io/kubelet"
		kubeAPI    = "k8s.io/api" // and k8s.io/apimachinery
		kubeClient = "k8s.io/client-go"
		protobuf   = "google.golang.org/protobuf"
		toml       = "github.com/pelletier/go-toml"
	)
	return []room{
		{"configs", nil, []string{toml}},
		{
			"handlers",
			[]string{"configs", "handlers/serviceenv", "hooks", "internal/backend", "internal/rawcri", "internal/routing"},
			[]string{criAPI, grpc, protobuf},
		},
		{"handlers/serviceenv", []string{"configs"}, []string{kubeAPI, kubeClient}},
		{"hooks", []string{"configs", "hooks/journal"}, []string{criAPI, grpc, protobuf, kubeAPI, kubeClient}},
		{"hooks/journal", []string{"internal/state"}, []string{bbolt}},
		{
			"imageservice",
			[]string{"configs", "imageservice/credentials", "internal/backend", "internal/containerd", "internal/flight", "internal/rawcri", "internal/routing"},
			[]string{criAPI, grpc, protobuf},
		},
		{"imageservice/credentials", []string{"configs", "internal/flight"}, []string{kubelet}},
		{"internal/admin", []string{"internal/socket"}, nil},
		{"internal/backend", []string{"configs", "internal/containerd", "internal/rawcri", "internal/routing"}, []string{criAPI, grpc, protobuf}},
		{"internal/containerd", nil, []string{containerd, grpc, protobuf}},
		{"internal/doctor", []string{"configs", "internal/admin", "internal/containerd", "internal/kubelet", "internal/rawcri"}, []string{criAPI, grpc}},
		{"internal/flight", nil, nil},
		{"internal/install", []string{"configs", "internal/admin", "internal/containerd", "internal/kubelet", "internal/rawcri"}, []string{criAPI}},
		{"internal/kubelet", nil, nil},
		{"internal/rawcri", nil, []string{criAPI, grpc, protobuf}},
		{"internal/routing", []string{"configs"}, nil},
		{"internal/socket", nil, nil},
		{"internal/state", nil, []string{bbolt}},
		{"internal/tracing", nil, []string{grpc}},
		{"test/fakeruntime", nil, []string{criAPI, grpc, protobuf}},
	}
}

// allows says whether the room may import a package.
func (r room) allows(path string) bool {
	if own, ok := strings.CutPrefix(path, module+"/"); ok {
		return slices.Contains(r.own, own)
	}
	if path == module {
		return false
	}
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(path, prefix) }
	return !slices.ContainsFunc(closedLibraries(), hasPrefix) || slices.ContainsFunc(r.foreign, hasPrefix)
}

// violations checks the imports of packages, both by import path.
func violations(imports map[string][]string) []string {
	byFolder := map[string]room{}
	for _, r := range rooms() {
		byFolder[r.folder] = r
	}
	var found []string
	for path, imported := range imports {
		folder := strings.TrimPrefix(path, module+"/")
		if folder == "cmd/cri-proxy" {
			continue
		}
		r, known := byFolder[folder]
		if !known {
			found = append(found, folder+" is not a room: add it to the table, or put the code where it belongs")
			continue
		}
		for _, i := range imported {
			if !r.allows(i) {
				found = append(found, folder+" must not import "+i)
			}
		}
	}
	slices.Sort(found)
	return found
}

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{if .GoFiles}}{{.ImportPath}} {{join .Imports " "}}{{end}}`, "./...")
	list.Dir, list.Stderr = "..", os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			imports[fields[0]] = fields[1:]
		}
	}
	if _, ok := imports[module+"/internal/state"]; !ok {
		t.Fatalf("go list does not know internal/state, so it saw nothing:\n%s", out)
	}
	for _, v := range violations(imports) {
		t.Error(v)
	}
}

func TestViolationsAreFound(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, folder, imported string
		want                   []string
	}{
		{"the standard library", "internal/routing", "net/http", nil},
		{"an open library", "internal/admin", "github.com/sirupsen/logrus", nil},
		{"a room below", "handlers", module + "/internal/routing", nil},
		{"a closed library that it may know", "internal/rawcri", "google.golang.org/protobuf/encoding/protowire", nil},
		{"everything from cmd", "cmd/cri-proxy", module + "/internal/state", nil},
		{
			"a room above", "internal/routing", module + "/handlers",
			[]string{"internal/routing must not import " + module + "/handlers"},
		},
		{
			"a room inside a room that it may know", "imageservice", module + "/hooks/journal",
			[]string{"imageservice must not import " + module + "/hooks/journal"},
		},
		{
			"a closed library", "internal/routing", "google.golang.org/grpc",
			[]string{"internal/routing must not import google.golang.org/grpc"},
		},
		{
			"another part of Kubernetes", "handlers", "k8s.io/client-go/tools/cache",
			[]string{"handlers must not import k8s.io/client-go/tools/cache"},
		},
		{
			"the commands", "handlers", module + "/cmd/cri-proxy",
			[]string{"handlers must not import " + module + "/cmd/cri-proxy"},
		},
		{
			"the root", "handlers", module,
			[]string{"handlers must not import " + module},
		},
		{
			"a new folder", "internal/utils", "fmt",
			[]string{"internal/utils is not a room: add it to the table, or put the code where it belongs"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := violations(map[string][]string{module + "/" + tt.folder: {tt.imported}})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

// The linter has a copy of the table, which must be the same.
func TestLinterKnowsTheSameRooms(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile("../.golangci.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range closedLibraries() {
		if !strings.Contains(string(config), "- {pkg: "+library+", desc: ") {
			t.Errorf(".golangci.yaml does not close %s", library)
		}
	}
	for _, r := range rooms() {
		if rule := r.rule(); !strings.Contains(string(config), rule) {
			t.Errorf(".golangci.yaml has no rule, or another one, for %s: want\n%s", r.folder, rule)
		}
	}
}

// rule is what stands in .golangci.yaml for a room, from its name to the next.
func (r room) rule() string {
	var b strings.Builder
	fmt.Fprintf(&b, "        %s:\n          list-mode: lax\n", strings.ReplaceAll(r.folder, "/", "-"))
	fmt.Fprintf(&b, "          files: [\"${config-path}/%s/*.go\", \"!$test\"]\n", r.folder)
	if r.folder == "configs" { // the first one, which defines what is closed
		return b.String()
	}
	b.WriteString("          deny: *own-and-heavy\n")
	if len(r.own)+len(r.foreign) > 0 {
		b.WriteString("          allow:\n")
	}
	for _, own := range r.own {
		fmt.Fprintf(&b, "            - %s/%s$\n", module, own)
	}
	for _, foreign := range r.foreign {
		fmt.Fprintf(&b, "            - %s\n", foreign)
	}
	return b.String() + "\n"
}

// The types of all API groups of Kubernetes are several megabytes of memory on
// every node, which no use of ours needs.
func TestNoClientset(t *testing.T) {
	t.Parallel()
	list, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/cmd/cri-proxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(list))
	if slices.Contains(packages, "k8s.io/client-go/kubernetes/scheme") || !slices.Contains(packages, "k8s.io/client-go/rest") {
		t.Error("cmd/cri-proxy imports a clientset of client-go, or nothing of it; use a REST client with the types that are needed")
	}
}
