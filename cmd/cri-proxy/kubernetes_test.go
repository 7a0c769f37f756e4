package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/cri-proxy/cri-proxy/configs"
)

// apiToken is what a kubeconfig of the tests lets in with.
const apiToken = "not-for-any-log"

// kubeconfigFor writes a kubeconfig for a server, whose certificate is not
// verified. client-go sends tokens over TLS only.
func kubeconfigFor(t *testing.T, server string) string {
	t.Helper()
	return writeFile(t, "kubeconfig", `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {insecure-skip-tls-verify: true, server: "`+server+`"}}]
users: [{name: u, user: {token: `+apiToken+`}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`)
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func configOf(kubeconfig string) *configs.Config {
	return &configs.Config{Kubernetes: configs.Kubernetes{Kubeconfig: kubeconfig}}
}

func TestRestConfig(t *testing.T) {
	t.Parallel()
	if c, err := restConfig(configOf("")); c != nil || err != nil {
		t.Errorf("without a kubeconfig: %v, %v", c, err)
	}
	c, err := restConfig(configOf(kubeconfigFor(t, "https://127.0.0.1:6443")))
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "https://127.0.0.1:6443" || c.BearerToken != apiToken || c.Timeout != 0 || c.QPS <= 0 || c.QPS > 10 {
		t.Errorf("got %s, QPS %v, time-out %s", c.Host, c.QPS, c.Timeout)
	}
	if want := "cri-proxy/" + readVersion().Version; c.UserAgent != want {
		t.Errorf("user agent %q, want %q", c.UserAgent, want)
	}
	if c.ContentType != "application/vnd.kubernetes.protobuf" || c.AcceptContentTypes != "application/vnd.kubernetes.protobuf,application/json" {
		t.Errorf("content types %q, %q", c.ContentType, c.AcceptContentTypes)
	}
}

// TestRestConfigRelative: a kubeconfig's files are beside it, as for kubectl.
func TestRestConfigRelative(t *testing.T) {
	t.Parallel()
	path := kubeconfigFor(t, "https://127.0.0.1:6443")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "token: "+apiToken, "tokenFile: token", 1))
	for name, content := range map[string][]byte{"kubeconfig": text, "token": []byte(apiToken)} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := restConfig(configOf(path))
	if err != nil || c.BearerTokenFile != filepath.Join(filepath.Dir(path), "token") {
		t.Errorf("got %v, %v", c, err)
	}
}

// TestKubeconfigRefused: a kubeconfig that cannot be used refuses the start, with
// its name, and without what is secret in it.
func TestKubeconfigRefused(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile(kubeconfigFor(t, "https://127.0.0.1:6443"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ old, text string }{
		"cut off":                     {"}]\ncontexts", ""},
		"no YAML":                     {"apiVersion: v1", "\tapiVersion: v1"},
		"no context":                  {"current-context: x", ""},
		"a context that is not there": {"current-context: x", "current-context: y"},
		"another kind":                {"kind: Config", "kind: Secret"},
		"a token that is no text":     {"token: ", "token: [1], password: "},
		"a CA that is none":           {"insecure-skip-tls-verify: true", "certificate-authority-data: YQ=="},
		"a server that is none":       {"https://127.0.0.1:6443", "https://%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, "kubeconfig", strings.Replace(string(good), tt.old, tt.text, 1))
			checkRefused(t, path)
		})
	}
}

// TestKubeconfigIsWaitedFor: what kubeadm has not written yet refuses no start.
func TestKubeconfigIsWaitedFor(t *testing.T) {
	t.Parallel()
	good, err := os.ReadFile(kubeconfigFor(t, "https://127.0.0.1:6443"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ old, text string }{
		"a CA that is not there":          {"insecure-skip-tls-verify: true", "certificate-authority: /not/there"},
		"a certificate that is not there": {"token: " + apiToken, "client-certificate: /not/there, client-key: /not/there"},
	} {
		path := writeFile(t, "kubeconfig", strings.Replace(string(good), tt.old, tt.text, 1))
		c, err := restConfig(configOf(path))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		later, ok := c.Transport.(*laterAPI)
		if !ok {
			t.Errorf("%s: the transport is a %T", name, c.Transport)
			continue
		}
		if _, _, err := later.find(); err == nil || !strings.Contains(err.Error(), path+" is not there yet") || !strings.Contains(err.Error(), "/not/there") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func checkRefused(t *testing.T, path string) {
	t.Helper()
	d := &daemon{cfg: configOf(path), log: quiet()}
	var err error
	if d.api, err = restConfig(d.cfg); err == nil { // A client of it shows the rest.
		_, err = d.newServiceEnv(nil)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "kubernetes.kubeconfig: "+path+" cannot be used; ") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), apiToken) {
		t.Errorf("the token is in %v", err)
	}
}

// TestRestConfigKeepsNoWarnings: what the API server warns of, a deprecated
// version for instance, is nothing for the node's log.
func TestRestConfigKeepsNoWarnings(t *testing.T) {
	t.Parallel()
	c, err := restConfig(configOf(kubeconfigFor(t, "https://127.0.0.1:6443")))
	if err != nil || c.WarningHandler != rest.WarningHandler(rest.NoWarnings{}) {
		t.Errorf("got %v", err)
	}
}

// TestRuntimeClasses: doctor asks for them as any client does.
func TestRuntimeClasses(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/node.k8s.io/v1/runtimeclasses" {
			t.Errorf("a request for %s", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		answer(t, w, `{"kind":"RuntimeClassList","apiVersion":"node.k8s.io/v1","items":[
			{"metadata":{"name":"sandboxed"},"handler":"gvisor"},{"metadata":{"name":"runc"},"handler":"runc"}]}`)
	}))
	t.Cleanup(server.Close)
	got, err := runtimeClasses(t.Context(), configOf(kubeconfigFor(t, server.URL)), "")
	if diff := cmp.Diff(map[string]string{"sandboxed": "gvisor", "runc": "runc"}, got); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
}
