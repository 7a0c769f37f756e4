package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func wantLookup(t *testing.T, k *Keyring, image string, want ...string) {
	t.Helper()
	found, err := k.Lookup(t.Context(), image)
	if err != nil {
		t.Errorf("Lookup(%q): %v", image, err)
	}
	if diff := cmp.Diff(want, usernames(found)); diff != "" {
		t.Errorf("Lookup(%q) (-want +got):\n%s", image, diff)
	}
}

func TestFilesInTheirOrder(t *testing.T) {
	t.Parallel()
	first := writeFile(t, "config.json", `{"auths": {"quay.io": {"username": "short"}, "https://index.docker.io/v1/": {"username": "hub"}}}`)
	second := writeFile(t, "config.json", `{"auths": {"quay.io/a": {"username": "long"}, "docker.io": {"username": "docker"}}}`)
	third := writeFile(t, ".dockercfg", `{"quay.io": {"username": "old"}}`)
	k, err := New(Options{AuthFiles: []string{first, second, third}, Log: new(logs).entry()})
	if err != nil {
		t.Fatal(err)
	}
	// Each file has its own order, and its own fallback for Docker Hub.
	wantLookup(t, k, "quay.io/a/b", "short", "long", "old")
	wantLookup(t, k, "busybox", "hub", "docker")
	wantLookup(t, k, "gcr.io/x")
	found, err := k.Lookup(t.Context(), "quay.io/a")
	if err != nil || len(found) != 3 || found[0].Source != first || found[2].Source != third {
		t.Errorf("found %v, %v, want each from its file", found, err)
	}
	if _, err := k.Lookup(t.Context(), "Not An Image"); err == nil || !strings.Contains(err.Error(), `"Not An Image"`) {
		t.Errorf("the error is %v, want one that names the image", err)
	}
}

func TestNewNamesTheFile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path, want string
	}{
		"missing":      {filepath.Join(t.TempDir(), "config.json"), "no such file"},
		"a directory":  {t.TempDir(), "not a regular file"},
		"not JSON":     {writeFile(t, "config.json", "auths:"), "not JSON"},
		"with helpers": {writeFile(t, "config.json", `{"credsStore": "pass"}`), "credsStore"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Options{AuthFiles: []string{tt.path}, Log: new(logs).entry()})
			if err == nil || !strings.Contains(err.Error(), tt.path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one with %q and %q", err, tt.path, tt.want)
			}
		})
	}
}

func TestFileIsFollowed(t *testing.T) {
	t.Parallel()
	const image = "quay.io/x"
	var out logs
	path := writeFile(t, "config.json", `{"auths": {"quay.io": {"username": "one"}}}`)
	k, err := New(Options{AuthFiles: []string{path}, Log: out.entry()})
	if err != nil {
		t.Fatal(err)
	}
	wantLookup(t, k, image, "one")
	replace(t, path, `{"auths": {"quay.io": {"username": "two"}}}`)
	wantLookup(t, k, image, "two")

	// Written in place, as long as before, and only the time tells.
	if err := os.WriteFile(path, []byte(`{"auths": {"quay.io": {"username": "six"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantLookup(t, k, image, "six")

	for range 2 { // One warning for each change, whatever the number of lookups.
		replace(t, path, `{"auths": {"quay.io": {"username": "hunter2"`)
		for range 3 {
			wantLookup(t, k, image, "six")
		}
	}
	if n := strings.Count(out.String(), "became invalid"); n != 2 || strings.Contains(out.String(), "hunter2") {
		t.Errorf("%d warnings, want 2 without content; the log:\n%s", n, &out)
	}
	replace(t, path, `{"auths": {}}`)
	wantLookup(t, k, image)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Lookup(t.Context(), image); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the error is %v, want one that names %s", err, path)
	}
	replace(t, path, `{"auths": {"quay.io": {"username": "new"}}}`)
	wantLookup(t, k, image, "new")
}

func TestKeysThatAreNoURLAreNamed(t *testing.T) {
	t.Parallel()
	var out logs
	path := writeFile(t, "config.json", `{"auths": {"me:hunter2@quay.io:port": {}, "quay.io": {"username": "good"}}}`)
	k, err := New(Options{AuthFiles: []string{path}, Log: out.entry()})
	if err != nil {
		t.Fatal(err)
	}
	wantLookup(t, k, "quay.io/x", "good")
	if log := out.String(); !strings.Contains(log, "quay.io:port") || !strings.Contains(log, path) || strings.Contains(log, "hunter2") {
		t.Errorf("the log is %s, want a warning with the file and the key without its user", log)
	}
}

func TestConcurrentLookups(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "config.json", `{"auths": {"quay.io": {"username": "user"}}}`)
	k, err := New(Options{AuthFiles: []string{path}, Log: new(logs).entry()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				wantLookup(t, k, "quay.io/x", "user")
			}
		})
	}
	for range 50 {
		replace(t, path, `{"auths": {"quay.io": {"username": "user"}}}`)
	}
	wg.Wait()
}
