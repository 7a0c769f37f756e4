package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	configHead = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n"
	goodFields = "name: p, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: [quay.io], defaultCacheDuration: 1m"
)

func TestParseProviders(t *testing.T) {
	t.Parallel()
	provider := func(fields string) string { return configHead + "providers: [{" + fields + "}]" }
	without := func(old, replacement string) string {
		return provider(strings.Replace(goodFields, old, replacement, 1))
	}
	tests := []struct{ name, content, wantError string }{
		{"good", provider(goodFields), ""},
		{"v1beta1", strings.Replace(provider(goodFields), "io/v1\n", "io/v1beta1\n", 1), ""},
		{"v1alpha1", strings.Replace(provider(goodFields), "io/v1\n", "io/v1alpha1\n", 1), ""},
		{"JSON", `{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [{"name": "p", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "matchImages": ["*.io"], "defaultCacheDuration": "0s", "args": ["a"], "env": [{"name": "A", "value": "b"}]}]}`, ""},
		{"not cached", without("1m", "0s"), ""},
		{"other version", strings.Replace(provider(goodFields), "io/v1\n", "io/v2\n", 1), "must be one of kubelet.config.k8s.io/v1, kubelet.config.k8s.io/v1beta1, kubelet.config.k8s.io/v1alpha1"},
		{"other kind", strings.Replace(provider(goodFields), "ProviderConfig", "Config", 1), "kind is"},
		{"empty", "", "kind is"},
		{"not YAML", "a: b: c", "not a CredentialProviderConfig"},
		{"no providers", configHead + "providers: []", "providers is empty"},
		{"unknown field", provider(goodFields + ", extra: 1"), "extra"},
		{"field twice", provider(goodFields + ", name: q"), "name"},
		{"no name", without("name: p, ", ""), `providers[0].name is ""`},
		{"name with slash", without("name: p", "name: ../p"), `providers[0].name is "../p"`},
		{"name with space", without("name: p", "name: a p"), `providers[0].name is "a p"`},
		{"name is dot", without("name: p", "name: ."), `providers[0].name is "."`},
		{"name is dots", without("name: p", "name: .."), `providers[0].name is ".."`},
		{"name twice", configHead + "providers: [{" + goodFields + "}, {" + goodFields + "}]", `providers[1].name "p" is taken`},
		{"old API", without("k8s.io/v1", "k8s.io/v1beta1"), `"credentialprovider.kubelet.k8s.io/v1beta1", must be credentialprovider.kubelet.k8s.io/v1`},
		{"no API", without("apiVersion: credentialprovider.kubelet.k8s.io/v1, ", ""), "must be credentialprovider.kubelet.k8s.io/v1"},
		{"no images", without("[quay.io]", "[]"), "matchImages of p is empty"},
		{"image is no URL", without("[quay.io]", "['quay.io:port']"), `matchImages of p: "quay.io:port"`},
		{"no duration", without(", defaultCacheDuration: 1m", ""), "defaultCacheDuration of p is missing"},
		{"negative duration", without("1m", "-1m"), "must not be negative"},
		{"duration is a number", without("1m", "60"), "not a CredentialProviderConfig"},
		{"token", provider(goodFields + ", tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: true}"), "tokenAttributes of p cannot be served"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			providers, err := parseProviders([]byte(tt.content))
			if tt.wantError == "" && (err != nil || len(providers) != 1) {
				t.Errorf("got %d providers and %v, want one", len(providers), err)
			}
			if tt.wantError != "" && (err == nil || !strings.Contains(err.Error(), tt.wantError)) {
				t.Errorf("the error is %v, want one with %q", err, tt.wantError)
			}
		})
	}
}

func FuzzParseProviders(f *testing.F) {
	f.Add(configHead + "providers: [{" + goodFields + "}]")
	f.Add(`{"kind": "CredentialProviderConfig", "providers": [{"defaultCacheDuration": null}]}`)
	f.Fuzz(func(t *testing.T, content string) {
		providers, err := parseProviders([]byte(content))
		if (err == nil) != (len(providers) > 0) {
			t.Errorf("got %d providers and %v", len(providers), err)
		}
	})
}

func TestPluginHasToBeThere(t *testing.T) {
	t.Parallel()
	config, bin := writeFile(t, "providers.yaml", configHead+"providers: [{"+goodFields+"}]"), t.TempDir()
	o := Options{Providers: config, BinDir: bin, Log: new(logs).entry()}
	wantError := func(want string) {
		t.Helper()
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), config) || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q and the file", err, want)
		}
	}
	wantError("no such file")
	if err := os.WriteFile(filepath.Join(bin, "p"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError("permission denied")
	o.BinDir = ""
	wantError("directory of its plugins")
}
