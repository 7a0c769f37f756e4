package real_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testConfig: the program takes it as it is.
func testConfig(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	if output, err := d.validate(ctx, t, b.Text); err != nil || !strings.HasSuffix(output, " is valid\n") {
		t.Errorf("%s:%d: %v: %s", b.File, b.Line, err, output)
	}
}

// testConfigPart: the program takes it beside what it needs.
func testConfigPart(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	if output, err := d.validate(ctx, t, completed(b.Text)); err != nil {
		t.Errorf("%s:%d: %v: %s", b.File, b.Line, err, output)
	}
}

// completed gives each handler that a part names a backend, each backend that it
// names a socket, and adds what every configuration has.
func completed(part string) string {
	handlers := map[string]bool{"runc": true}
	for _, name := range regexp.MustCompile(`(?m)^\[+handlers\.([a-z0-9-]+)`).FindAllStringSubmatch(part, -1) {
		handlers[name[1]] = true
	}
	var rest strings.Builder
	for _, name := range regexp.MustCompile(`(?m)^backend = "([a-z0-9-]+)"`).FindAllStringSubmatch(part, -1) {
		if table := "[backends." + name[1] + "]"; !strings.Contains(part, table) {
			fmt.Fprintf(&rest, "%s\nendpoint = \"/run/%s.sock\"\n", table, name[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		if !strings.Contains(part, "[handlers."+name+"]") {
			fmt.Fprintf(&rest, "[handlers.%s]\nbackend = \"completed\"\n", name)
		}
	}
	return "version = 1\ndefault_handler = \"runc\"\n" + part + "\n[backends.completed]\nendpoint = \"/run/completed.sock\"\n" + rest.String()
}

// validate has the program judge a configuration that is called config.toml.
func (d *documented) validate(ctx context.Context, t *testing.T, text string) (string, error) {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d.command(ctx, folder, "config", "validate", "--config", "config.toml")
}

// testMistakes: the program says what the next block says.
func testMistakes(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	next := d.blocks[slices.Index(d.blocks, b)+1]
	output, err := d.validate(ctx, t, b.Text)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 || next.Test != "config-answer" {
		t.Fatalf("%s:%d: %v, and the next block is for %q", b.File, b.Line, err, next.Test)
	}
	if _, answer, _ := strings.Cut(output, "\n"); answer != next.Text {
		t.Errorf("%s:%d: it says\n%s", next.File, next.Line, answer)
	}
}

// testContainerd: containerd takes it, and has each of its values.
func testContainerd(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	file, text := filepath.Join(t.TempDir(), "config.toml"), b.Text
	if !strings.Contains(text, "\nversion = ") { // A part.
		text = "version = 3\n" + text
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(ctx, filepath.Join(d.Parts.Containerd, "containerd"), "--config", file, "config", "dump").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	values := regexp.MustCompile(`(?m)^(\w+ = )"([^"]*)"`).FindAllStringSubmatch(b.Text, -1)
	if len(values) == 0 {
		t.Error("no values")
	}
	for _, value := range values {
		wantContains(t, string(output), value[1]+"'"+value[2]+"'\n")
	}
}

// testKubelet: it is what cri-proxy looks for in the kubelet's configuration, and
// leads to the socket of the README's configuration.
func testKubelet(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	var keys map[string]string
	if err := yaml.Unmarshal([]byte(b.Text), &keys); err != nil || len(keys) != 1 || keys["containerRuntimeEndpoint"] == "" {
		t.Errorf("%s:%d: %v, %v", b.File, b.Line, keys, err)
	}
	if err := os.WriteFile(filepath.Join(d.root, "var/lib/kubelet/config.yaml"), []byte(b.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := d.command(ctx, d.root, "doctor", "--root", d.root, "--config", "/etc/cri-proxy/config.toml", "-o", "json")
	var report struct {
		Findings []struct{ Verdict, Check, Reason string }
	}
	if problem := json.NewDecoder(strings.NewReader(output)).Decode(&report); problem != nil {
		t.Fatalf("%v, %v: %s", err, problem, output)
	}
	for _, found := range report.Findings {
		if found.Check == "kubelet-endpoint" && found.Verdict == "ok" {
			return
		}
	}
	t.Errorf("the doctor does not find the kubelet's endpoint right: %s", output)
}

// testAnnotations: a pod with them is created, and its hooks run. The image does
// not have the program that is to drain it.
func testAnnotations(ctx context.Context, t *testing.T, d *documented, b rig.Block) {
	annotations := map[string]string{}
	if err := yaml.Unmarshal([]byte(b.Text), &annotations); err != nil || len(annotations) == 0 {
		t.Fatalf("%s:%d: %v, %v", b.File, b.Line, annotations, err)
	}
	d.hook(ctx, t)
	container := d.pod(ctx, t, "gvisor", "annotated", annotations)
	run(ctx, t, crictl(t, d.node, d.proxy.Endpoint()), "stop", "--timeout", "10", container)
	body, err := d.proxy.AdminGet(ctx, "/v1/hooks")
	var report struct {
		Hooks []struct{ Container, Source, Event, Kind, State string }
	}
	if err := errors.Join(err, json.Unmarshal(body, &report)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range report.Hooks {
		if h.Container == container && h.Source == "pod" {
			got = append(got, h.Event+" "+h.Kind+" "+h.State)
		}
	}
	if want := []string{"PostStart httpGet delivered", "PreStop exec failed", "PreStop sleep delivered"}; !slices.Equal(got, want) {
		t.Errorf("the hooks are %q, want %q", got, want)
	}
}

// testObjects: Kubernetes has objects of these kinds, with these fields.
func testObjects(_ context.Context, t *testing.T, _ *documented, b rig.Block) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for object := range strings.SplitSeq(b.Text, "---\n") {
		if _, _, err := decoder.Decode([]byte(object), nil, nil); err != nil {
			t.Errorf("%s:%d: %v", b.File, b.Line, err)
		}
	}
}

// testKindConfig: the patches for kubeadm are those of the shipped cluster.
func testKindConfig(_ context.Context, t *testing.T, d *documented, b rig.Block) {
	type config struct{ KubeadmConfigPatches []string }
	var said, shipped config
	err := errors.Join(yaml.Unmarshal([]byte(b.Text), &said),
		yaml.Unmarshal([]byte(read(t, filepath.Join(d.Options.Root, "configs/kind/cluster.yaml"))), &shipped))
	if err != nil || len(said.KubeadmConfigPatches) == 0 || !slices.Equal(said.KubeadmConfigPatches, shipped.KubeadmConfigPatches) {
		t.Errorf("%s:%d: %v, %q, and shipped is %q", b.File, b.Line, err, said.KubeadmConfigPatches, shipped.KubeadmConfigPatches)
	}
}

// testUnit: its lines are in the shipped unit that its comment names.
func testUnit(_ context.Context, t *testing.T, d *documented, b rig.Block) {
	lines := strings.Split(strings.TrimSpace(b.Text), "\n")
	shipped := read(t, filepath.Join(d.Options.Root, "configs/systemd", strings.TrimPrefix(lines[0], "# ")))
	for _, line := range lines[1:] {
		if !strings.Contains(shipped, "\n"+line+"\n") {
			t.Errorf("%s:%d: the shipped unit does not have %s", b.File, b.Line, line)
		}
	}
}
