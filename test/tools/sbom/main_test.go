package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const epoch = "1700000000" // 2023-11-14T22:13:20Z

// TestOwn: a test's own binary is built from modules as well.
func TestOwn(t *testing.T) {
	t.Parallel()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	first, second := written(t, own), written(t, own)
	if !bytes.Equal(first, second) {
		t.Errorf("one binary gave two documents:\n%s\n%s", first, second)
	}
	testDocument(t, first, own)
	if got := decoded(t, first).Metadata.Timestamp; got != "2023-11-14T22:13:20Z" {
		t.Errorf("the time is %s, want the commit's", got)
	}
}

// TestDist is about what "make dist" wrote.
func TestDist(t *testing.T) {
	t.Parallel()
	dist := os.Getenv("DIST")
	if dist == "" {
		t.Skip(`LEFT OUT: there is no document to test; "make dist" makes one and runs this`)
	}
	files, err := filepath.Glob(filepath.Join(dist, "*.cdx.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s has the documents %q, want one (%v)", dist, files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	testDocument(t, text, filepath.Join(dist, "..", "cri-proxy"))
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, file, epoch, want string }{
		{"no time", "main.go", "", "SOURCE_DATE_EPOCH"},
		{"no binary", "main.go", epoch, "main.go"},
		{"no file", "missing", epoch, "missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := write(&out, tt.file, tt.epoch); err == nil || !strings.Contains(err.Error(), tt.want) || out.Len() > 0 {
				t.Errorf("got %v and %d bytes, want an error with %q", err, out.Len(), tt.want)
			}
		})
	}
}

func testDocument(t *testing.T, text []byte, binary string) {
	rules := schema(t)
	if err := rules.Validate(parsed(t, text)); err != nil {
		t.Errorf("not valid: %v", err)
	}
	if rules.Validate(parsed(t, bytes.ReplaceAll(text, []byte("urn:uuid:"), []byte("urn:")))) == nil {
		t.Error("the schema allows anything")
	}
	got, bom := map[string]string{}, decoded(t, text)
	for _, c := range append(*bom.Components, *bom.Metadata.Component) {
		if got[c.Name] != "" || !strings.HasPrefix(c.PackageURL, "pkg:golang/"+c.Name+"@") {
			t.Errorf("%s is there twice, or its address is wrong: %s", c.Name, c.PackageURL)
		}
		got[c.Name] = strings.TrimSpace(c.Version + " " + sum(c))
	}
	if want := modules(t, binary); !maps.Equal(got, want) {
		t.Errorf("the document has\n%v, and the binary\n%v", got, want)
	}
	if needed := (*bom.Dependencies)[0]; needed.Ref != bom.Metadata.Component.BOMRef || len(*needed.Dependencies) != len(got)-1 {
		t.Errorf("the program is said to need %v", needed)
	}
}

func sum(c cdx.Component) string {
	if c.Properties != nil {
		for _, property := range *c.Properties {
			if property.Name == "go:sum" {
				return property.Value
			}
		}
	}
	return ""
}

// modules are those of "go version -m", and Go's own library.
func modules(t *testing.T, binary string) map[string]string {
	t.Helper()
	found, last := map[string]string{}, ""
	for line := range strings.Lines(output(t, "go", "version", "-m", binary)) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, binary+": "):
			found["stdlib"] = strings.TrimPrefix(fields[1], "go")
		case fields[0] == "=>":
			delete(found, last)
			fallthrough
		case fields[0] == "mod", fields[0] == "dep":
			last = fields[1]
			found[last] = strings.Join(fields[2:], " ")
		}
	}
	if len(found) < 4 {
		t.Fatalf("%s is built from %v alone?", binary, found)
	}
	return found
}

// schema is CycloneDX's own, which its library brings along.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := strings.TrimSpace(output(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go"))
	compiler := jsonschema.NewCompiler()
	for file, id := range map[string]string{"bom-1.6.schema.json": "bom-1.6", "spdx.schema.json": "spdx", "jsf-0.82.schemax.json": "jsf-0.82"} {
		text, err := os.ReadFile(filepath.Join(dir, "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource("http://cyclonedx.org/schema/"+id+".schema.json", parsed(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	return compiler.MustCompile("http://cyclonedx.org/schema/bom-1.6.schema.json")
}

func parsed(t *testing.T, text []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func decoded(t *testing.T, text []byte) *cdx.BOM {
	t.Helper()
	bom := &cdx.BOM{}
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		t.Fatal(err)
	}
	return bom
}

func written(t *testing.T, binary string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out, binary, epoch); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}
