package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("in.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v\nin:\n%s", err, text)
	}
	return c
}

func diff(want, got *Config) string {
	return cmp.Diff(*want, *got, cmpopts.IgnoreUnexported(Config{}))
}

func TestShippedFileIsDefault(t *testing.T) {
	t.Parallel()
	got, want := mustParse(t, string(DefaultTOML())), Default()
	if d := diff(&want, got); d != "" || !got.Equal(&want) {
		t.Errorf("-Default() +config.toml:\n%s", d)
	}
}

// Without the tables of the handler that only repeat defaults, the file means the same.
func TestShippedTablesRepeatDefaults(t *testing.T) {
	t.Parallel()
	want := Default()
	section := regexp.MustCompile(`(?m)^\[handlers\.runc\.\w+\]\n(?:[^\[\n].*\n|\n)*`)
	text := section.ReplaceAllString(string(DefaultTOML()), "")
	if strings.Contains(text, "pull_policy =") || strings.Contains(text, "\nenabled") {
		t.Fatalf("the tables are still there:\n%s", text)
	}
	if d := diff(&want, mustParse(t, text)); d != "" {
		t.Errorf("-Default() +config.toml without them:\n%s", d)
	}
}

func TestShippedExamplesAreValid(t *testing.T) {
	t.Parallel()
	example := regexp.MustCompile(`(?m)^#([^ \n])`)
	shipped := string(DefaultTOML())
	if n := len(example.FindAllString(shipped, -1)); n < 20 {
		t.Fatalf("only %d lines of examples", n)
	}
	c := mustParse(t, example.ReplaceAllString(shipped, "$1"))
	gvisor := c.Handlers["gvisor"]
	if len(c.Backends) != 2 || len(gvisor.Hooks.PostStart) != 1 || len(gvisor.Hooks.PreStop) != 2 || gvisor.ServiceEnv.OnUnavailable != UnavailableSkip {
		t.Errorf("examples are missing: %+v", c)
	}
}

func TestShippedFileHasEveryKey(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAllString(string(DefaultTOML()), "$1")
	d, problem := parse("config.toml", []byte(text))
	if problem != nil {
		t.Fatal(problem)
	}
	known := map[string]bool{}
	for _, n := range d.nodes {
		known[n.path[len(n.path)-1]] = true
	}
	for _, key := range schemaKeys(reflect.TypeFor[Config]()) {
		if !known[key] {
			t.Errorf("config.toml does not have the key %s", key)
		}
	}
}

func schemaKeys(t reflect.Type) []string {
	var keys []string
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return schemaKeys(t.Elem())
	case reflect.Struct:
		for name, f := range fields(t) {
			keys = append(append(keys, name), schemaKeys(f)...)
		}
	default:
	}
	return keys
}

func TestDefaultRoundTrip(t *testing.T) {
	t.Parallel()
	want := Default()
	text, err := Dump(&want)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(&want, mustParse(t, string(text))); d != "" {
		t.Errorf("-Default() +parsed dump:\n%s", d)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "c.toml")
	if _, err := Load(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte("version = 1\nx = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file)
	if err == nil || !strings.Contains(err.Error(), file+":2:1: x: unknown key") {
		t.Errorf("a mistake: %v", err)
	}
	if err := os.WriteFile(file, DefaultTOML(), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.DefaultHandler != "runc" {
		t.Errorf("the shipped file: %v, %v", c, err)
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	a, b := mustParse(t, string(DefaultTOML())), mustParse(t, "# Moved.\n"+string(DefaultTOML()))
	if !a.Equal(b) {
		t.Error("the place of a key makes a difference")
	}
	b.Log.Level = "debug"
	if a.Equal(b) {
		t.Error("a value makes no difference")
	}
}

func TestRuntimeName(t *testing.T) {
	t.Parallel()
	empty, own := "", "runsc"
	for _, tt := range []struct {
		runtime *string
		want    string
	}{{nil, "gvisor"}, {&empty, ""}, {&own, "runsc"}} {
		if got := (Handler{Runtime: tt.runtime}).RuntimeName("gvisor"); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestBackendImages(t *testing.T) {
	t.Parallel()
	b := Backend{Endpoint: "unix:///a"}
	if got := b.Images(); got != "unix:///a" {
		t.Errorf("without an image endpoint: %q", got)
	}
	b.ImageEndpoint = "unix:///b"
	if got := b.Images(); got != "unix:///b" {
		t.Errorf("with an image endpoint: %q", got)
	}
}

func TestSocketPath(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("x", maxSocketPath-1)
	for _, tt := range []struct{ endpoint, want, wantErr string }{
		{"unix:///run/a.sock", "/run/a.sock", ""},
		{"unix:/run/a.sock", "/run/a.sock", ""},
		{"/run/a.sock", "/run/a.sock", ""},
		{"unix:////run//b/../a.sock", "/run/a.sock", ""},
		{"//run/a.sock", "/run/a.sock", ""},
		{long, long, ""},
		{"unix://" + long, long, ""},
		{"", "", "is empty"},
		{"unix:", "", "not an absolute unix socket"},
		{"unix://", "", "not an absolute unix socket"},
		{"unix://run/a.sock", "", "not an absolute unix socket"},
		{"unix:run/a.sock", "", "not an absolute unix socket"},
		{"run/a.sock", "", "not an absolute unix socket"},
		{"./a.sock", "", "not an absolute unix socket"},
		{"@abstract", "", "not an absolute unix socket"},
		{"unix-abstract:a", "", "not an absolute unix socket"},
		{"tcp://127.0.0.1:1", "", "not an absolute unix socket"},
		{"npipe:////./pipe/x", "", "not an absolute unix socket"},
		{"UNIX:///run/a.sock", "", "not an absolute unix socket"},
		{"/", "", "is a directory"},
		{"/run/", "", "is a directory"},
		{"/a\x00b", "", "zero byte"},
		{long + "y", "", "the path has 108 bytes, a unix socket may have at most 107"},
	} {
		got, err := SocketPath(tt.endpoint)
		if got != tt.want || (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
			t.Errorf("SocketPath(%q) = %q, %v; want %q, %q", tt.endpoint, got, err, tt.want, tt.wantErr)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"5s", 5 * time.Second, true},
		{"1m30s", 90 * time.Second, true},
		{"-1ms", -time.Millisecond, true},
		{"0s", 0, true},
		{"5", 0, false},
		{"0", 0, false},
		{"", 0, false},
		{"5 s", 0, false},
		{"1d", 0, false},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(tt.text)); (err == nil) != tt.ok || d.Duration != tt.want {
			t.Errorf("%q: %s, %v", tt.text, d, err)
		}
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want FileMode
		back string
	}{
		{"0660", 0o660, "0660"},
		{"600", 0o600, "0600"},
		{"0", 0, "0000"},
		{"0777", 0o777, "0777"},
		{"1777", 0, ""},
		{"0888", 0, ""},
		{"rw", 0, ""},
		{"-1", 0, ""},
		{"", 0, ""},
	} {
		var m FileMode
		err := m.UnmarshalText([]byte(tt.text))
		if (err == nil) != (tt.back != "") || m != tt.want {
			t.Errorf("%q: %o, %v", tt.text, m, err)
		}
		if back, err := m.MarshalText(); tt.back != "" && (string(back) != tt.back || err != nil) {
			t.Errorf("%q is written as %q, %v", tt.text, back, err)
		}
	}
}
