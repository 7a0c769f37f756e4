package credentials

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// provider is a credential provider of a test: this test binary in a mode.
type provider struct {
	mode, argument string
	images         []string // Without: quay.io.
	duration       string   // Without: 1h.
}

// rig is a keyring with plugins only. The n-th is called p<n>.
type rig struct {
	*Keyring
	logs  logs
	clock clock
	dir   string
}

// lifted are limits that no test meets by accident.
func lifted() limits {
	return limits{time: time.Minute, grace: 5 * time.Second, output: 1 << 20, cached: 100}
}

func newRig(t *testing.T, l limits, providers ...provider) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var config []map[string]any
	for i, p := range providers {
		name := "p" + string(rune('0'+i))
		if err := os.Symlink(self, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
		if p.images == nil {
			p.images = []string{"quay.io"}
		}
		if p.duration == "" {
			p.duration = "1h"
		}
		config = append(config, map[string]any{
			"name": name, "apiVersion": apiVersion(), "matchImages": p.images, "defaultCacheDuration": p.duration,
			"args": []string{filepath.Join(r.dir, name+".calls"), p.argument},
			"env":  []map[string]string{{"name": modeVariable, "value": p.mode}},
		})
	}
	content, err := json.Marshal(map[string]any{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": config})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, "providers.json")
	replace(t, path, string(content))
	l.now = r.clock.now
	if r.Keyring, err = newKeyring(Options{Providers: path, BinDir: r.dir, Log: r.logs.entry()}, l); err != nil {
		t.Fatal(err)
	}
	return r
}

// calls returns the requests that a plugin got.
func (r *rig) calls(t *testing.T, name string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.dir, name+".calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")[:strings.Count(string(content), "\n")]
}

func (r *rig) wantCalls(t *testing.T, want int) {
	t.Helper()
	if got := len(r.calls(t, "p0")); got != want {
		t.Errorf("the plugin was called %d times, want %d", got, want)
	}
}

// answerOf is a plugin's answer: cache says its type and duration, and each key has itself as its user.
func answerOf(cache string, keys ...string) string {
	auth := map[string]map[string]string{}
	for _, key := range keys {
		auth[key] = map[string]string{"username": key, "password": "secret"}
	}
	content, err := json.Marshal(auth)
	if err != nil {
		panic(err)
	}
	return `{"kind": "CredentialProviderResponse", "apiVersion": "` + apiVersion() + `", ` + cache + `, "auth": ` + string(content) + `}`
}

func TestPluginIsAskedAsTheKubeletAsks(t *testing.T) {
	t.Parallel()
	r := newRig(t, lifted(), provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Image"`, "quay.io"), images: []string{"*.quay.io", "quay.io/a"}})
	wantLookup(t, r.Keyring, "quay.io/other/x")
	wantLookup(t, r.Keyring, "busybox")
	r.wantCalls(t, 0)
	wantLookup(t, r.Keyring, "quay.io/a/x:tag", "quay.io")
	const request = `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"quay.io/a/x"}`
	if got := r.calls(t, "p0"); len(got) != 1 || got[0] != request {
		t.Errorf("the plugin got %q, want %q", got, request)
	}
	// Called, but what it answered is for another registry.
	wantLookup(t, r.Keyring, "my.quay.io/x")
	r.wantCalls(t, 2)
}

func TestPluginsAreMatchedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, lifted(),
		provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Image"`, "quay.io", "*.io")},
		provider{mode: "fail"},
		provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Image"`, "quay.io/a", "quay.io")})
	found, err := r.Lookup(t.Context(), "quay.io/a/b")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range found {
		got = append(got, c.Username+" of "+c.Source)
	}
	if want := "quay.io/a of p2, quay.io of p0, quay.io of p2, *.io of p0"; strings.Join(got, ", ") != want {
		t.Errorf("found %q, want %s", got, want)
	}
}

func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	const same, otherImage, otherRegistry = "quay.io/a", "quay.io/b", "ghcr.io/a"
	tests := []struct {
		name, cache, duration string
		advance               time.Duration
		image                 string
		calls                 int
	}{
		{"image", `"cacheKeyType": "Image"`, "1h", time.Hour, same, 1},
		{"image, tags are not part of it", `"cacheKeyType": "Image"`, "1h", 0, same + ":v1", 1},
		{"image, expired", `"cacheKeyType": "Image"`, "1h", time.Hour + 1, same, 2},
		{"image, other image", `"cacheKeyType": "Image"`, "1h", 0, otherImage, 2},
		{"registry, other image", `"cacheKeyType": "Registry"`, "1h", 0, otherImage, 1},
		{"registry, other registry", `"cacheKeyType": "Registry"`, "1h", 0, otherRegistry, 2},
		{"global", `"cacheKeyType": "Global"`, "1h", 0, otherRegistry, 1},
		{"own duration", `"cacheKeyType": "Image", "cacheDuration": "2h"`, "1h", 2 * time.Hour, same, 1},
		{"own duration, expired", `"cacheKeyType": "Image", "cacheDuration": "1m"`, "1h", time.Minute + 1, same, 2},
		{"own duration is null", `"cacheKeyType": "Image", "cacheDuration": null`, "1h", time.Hour, same, 1},
		{"own duration is zero", `"cacheKeyType": "Image", "cacheDuration": "0s"`, "1h", 0, same, 2},
		{"own duration is negative", `"cacheKeyType": "Image", "cacheDuration": "-1h"`, "1h", 0, same, 2},
		{"no duration", `"cacheKeyType": "Image"`, "0s", 0, same, 2},
		{"own duration instead of none", `"cacheKeyType": "Image", "cacheDuration": "1h"`, "0s", time.Hour, same, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, lifted(), provider{mode: "answer", argument: answerOf(tt.cache, "*.io"), images: []string{"*.io"}, duration: tt.duration})
			wantLookup(t, r.Keyring, same, "*.io")
			r.clock.advance(tt.advance)
			wantLookup(t, r.Keyring, tt.image, "*.io")
			r.wantCalls(t, tt.calls)
		})
	}
}

func TestNoCredentialsAreKeptToo(t *testing.T) {
	t.Parallel()
	r := newRig(t, lifted(), provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Image"`)})
	wantLookup(t, r.Keyring, "quay.io/a")
	wantLookup(t, r.Keyring, "quay.io/a")
	r.wantCalls(t, 1)
}

func TestKeyringsShareNothing(t *testing.T) {
	t.Parallel()
	for range 2 {
		r := newRig(t, lifted(), provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Global"`, "quay.io")})
		wantLookup(t, r.Keyring, "quay.io/a", "quay.io")
		r.wantCalls(t, 1)
	}
}

func TestPluginThatFails(t *testing.T) {
	t.Parallel()
	good := answerOf(`"cacheKeyType": "Image"`, "quay.io")
	tests := []struct{ name, mode, argument, reason string }{
		{"exit code", "fail", "", "exit status 1"},
		{"rubbish", "answer", "secret: rubbish", "not the JSON"},
		{"nothing", "answer", "", "not the JSON"},
		{"two answers", "answer", good + good, "goes on after"},
		{"unknown field", "answer", strings.Replace(good, `"auth"`, `"secret": 1, "auth"`, 1), "not the JSON"},
		{"other kind", "answer", strings.Replace(good, "Response", "secret", 1), "the kind of its answer"},
		{"no kind", "answer", strings.Replace(good, `"kind": "CredentialProviderResponse", `, "", 1), "the kind of its answer"},
		{"other apiVersion", "answer", strings.Replace(good, "k8s.io/v1", "k8s.io/v1beta1", 1), "the apiVersion of its answer"},
		{"other cache key", "answer", strings.Replace(good, "Image", "secret", 1), "the cacheKeyType of its answer"},
		{"too much", "flood", good, "more than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, lifted(), provider{mode: tt.mode, argument: tt.argument})
			wantLookup(t, r.Keyring, "quay.io/a")
			log := r.logs.String()
			for _, want := range []string{"level=warning", "plugin=p0", "image=quay.io/a", tt.reason} {
				if !strings.Contains(log, want) {
					t.Errorf("the log has no %q:\n%s", want, log)
				}
			}
			if strings.Contains(log, "secret") || len(log) > 4<<10 {
				t.Errorf("the log quotes the answer, or is too long:\n%s", log)
			}
			// A failure is not kept.
			wantLookup(t, r.Keyring, "quay.io/a")
			r.wantCalls(t, 2)
		})
	}
}

func TestProvidersAreFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t, lifted(), provider{mode: "answer", argument: answerOf(`"cacheKeyType": "Global"`, "quay.io")})
	path := filepath.Join(r.dir, "providers.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLookup(t, r.Keyring, "quay.io/a", "quay.io")
	// A plugin that comes later than its configuration.
	replace(t, path, strings.ReplaceAll(string(content), `"p0"`, `"later"`))
	wantLookup(t, r.Keyring, "quay.io/a", "quay.io")
	r.wantCalls(t, 1)
	if log := r.logs.String(); !strings.Contains(log, "became invalid") || !strings.Contains(log, "credential provider later") {
		t.Errorf("the log does not name the plugin that is missing:\n%s", log)
	}
	if err := os.Rename(filepath.Join(r.dir, "p0"), filepath.Join(r.dir, "later")); err != nil {
		t.Fatal(err)
	}
	found, err := r.Lookup(t.Context(), "quay.io/a")
	if err != nil || len(found) != 1 || found[0].Source != "later" {
		t.Errorf("found %v, %v, want what the new plugin answers", found, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	c := cache{max: 2}
	c.put(now, now.Add(3), "long", nil)
	c.put(now, now.Add(1), "short", nil)
	c.put(now, now.Add(2), "middle", nil)
	if _, ok := c.get(now, "short"); ok || len(c.answers) != 2 {
		t.Errorf("%d answers, want 2 without the one that expires first", len(c.answers))
	}
	if _, ok := c.get(now.Add(3), "middle", "long"); !ok || len(c.answers) != 1 {
		t.Errorf("%d answers, want the long one only", len(c.answers))
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(answerOf(`"cacheKeyType": "Image"`, "quay.io")))
	f.Add([]byte(answerOf(`"cacheKeyType": "Global", "cacheDuration": "1h"`)))
	f.Add([]byte(`{"kind": "Status"}`))
	f.Fuzz(func(t *testing.T, stdout []byte) {
		response, err := parseResponse(stdout)
		if err == nil && (response.Kind != responseKind || response.APIVersion != apiVersion() || response.CacheKeyType == "") {
			t.Errorf("accepted %q", stdout)
		}
	})
}
