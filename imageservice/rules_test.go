package imageservice

import (
	"cmp"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestPermit: which references the rules of a handler let through.
func TestPermit(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, c := range []struct {
		allow  string // Separated by spaces.
		digest bool
		image  string
		want   string // Part of the message; "" is permitted.
	}{
		{"", false, "app", ""},
		{"docker.io/library/*", false, "app", ""},
		{"docker.io/library/*", false, "docker.io/library/app:1", ""},
		{"docker.io/library/*", false, "index.docker.io/library/app", ""},
		{"docker.io/library/*", false, "team/app", `image "team/app", in full "docker.io/team/app:latest"`},
		{"docker.io/library/*", false, "evil.example/docker.io/library/app", "matches none of its patterns: docker.io/library/*"},
		{"r.example/*", false, "r.example/a/b/c:1", ""},
		{"r.example/*", false, "r.example.evil/a", "handler \"h\" has images.allow"},
		{"r.example*", false, "r.example.evil/a", ""},
		{"r.example/*", false, "r.example:5000/a", "images.allow"},
		{"r.example/app", false, "r.example/app", "images.allow"},
		{"r.example/app:latest", false, "r.example/app", ""},
		{"r.example/app:1", false, "r.example/app:12", "images.allow"},
		{"r.example/app:1", false, "r.example/app:1@" + digest, "images.allow"},
		{"r.example/app@*", false, "r.example/app:1@" + digest, ""},
		{"*/app:*", false, "r.example/a/b/app:1", ""},
		{"r.example/a.b:*", false, "r.example/aXb:1", "images.allow"},
		{"a.example/* b.example/*", false, "b.example/app", ""},
		{"a.example/* b.example/*", false, "c.example/app", "a.example/*, b.example/*"},
		{"r.example/*", false, digest, "images.allow"},
		{"r.example/*", false, "r.example/a\nr.example/b", "images.allow"},
		{"", true, "app", "images.require_digest"},
		{"", true, "r.example/app:1", `image "r.example/app:1" has no digest`},
		{"", true, "app@" + digest, ""},
		{"", true, "app:1@" + digest, ""},
		{"", true, digest, ""},
		{"r.example/*", true, "r.example/app", "images.require_digest"},
		{"r.example/*", true, "app@" + digest, "images.allow"},
		{"r.example/*", true, "r.example/app@" + digest, ""},
	} {
		err := newSettings("h", configs.Images{Allow: strings.Fields(c.allow), RequireDigest: c.digest}, nil).permit(c.image)
		if c.want == "" && err != nil {
			t.Errorf("%q for %q: %v", c.image, c.allow, err)
		}
		if c.want != "" && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q for %q: %v, want %q", c.image, c.allow, err, c.want)
		}
	}
}

// FuzzPattern: a pattern without a star matches itself alone, and one that is
// the pieces of a name with stars between them matches the name.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"r.example/a*b:1", "*", "a.b", `\E[a-z]+(x)`, "r.example/*/app@sha256:*", "a**b"} {
		f.Add(seed, "x/y")
	}
	f.Fuzz(func(t *testing.T, pattern, filling string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(filling) || strings.ContainsRune(pattern+filling, '\n') {
			return // No configuration and no reference has this.
		}
		compiled := compile(pattern)
		if name := strings.ReplaceAll(pattern, "*", filling); !compiled.MatchString(name) {
			t.Errorf("%q does not match %q", pattern, name)
		}
		if !strings.Contains(pattern, "*") && filling != "" && (compiled.MatchString(pattern+filling) || compiled.MatchString(filling+pattern)) {
			t.Errorf("%q matches more than itself, with %q", pattern, filling)
		}
	})
}

// TestRulesOnEveryWay: an image that a handler must not use is refused wherever
// it could come in, also when another handler brought it.
func TestRulesOnEveryWay(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _, tenant := way(t, `allow = ["r.example/*"]`)
			bad, good := "other.example/app", "r.example/app"
			badID, goodID := tenant.AddImage(bad, nil), tenant.AddImage(good, nil)
			a, free := k.run("a", "tenant"), k.run("free", "open")
			refused := func(err error) {
				t.Helper()
				wantCode(t, err, codes.PermissionDenied, `handler "tenant" has images.allow`, bad, "r.example/*")
			}
			_, err := k.pullFor(t.Context(), a, bad, nil)
			refused(err)
			_, err = k.service.Pull(t.Context(), "tenant", bad)
			refused(err)
			_, err = k.start(a, "c", bad, "IfNotPresent")
			refused(err)
			refused(k.create(a, "c", bad, badID))
			refused(k.create(a, "c", "", bad))
			refused(k.create(a, "c", good, bad))
			refused(k.create(a, "c", bad, good))
			refused(k.create(a, "c", good, goodID, volume(bad, badID)))
			wantCode(t, k.create(a, "c", "", badID), codes.PermissionDenied, badID)
			wantCode(t, k.create(a, "c", badID, badID), codes.PermissionDenied, badID)
			if got := len(tenant.Calls("CreateContainer")) + len(tenant.Calls("PullImage")); got != 0 {
				t.Errorf("%d calls arrived", got)
			}
			if got := k.counted(); !maps.Equal(got, map[string]int{pullRefused: 2}) {
				t.Errorf("counted %v", got)
			}
			k.wantStart(a, "c", good, "IfNotPresent", 0)
			if err := k.create(a, "d", good, goodID, volume(good, goodID)); err != nil {
				t.Errorf("a volume: %v", err)
			}
			if _, err := k.pullFor(t.Context(), free, bad, nil); err != nil {
				t.Errorf("the other handler: %v", err)
			}
		})
	}
}

// TestRulesOfAnUnknownSandbox: a sandbox whose create's answer was lost has its
// handler's rules as well.
func TestRulesOfAnUnknownSandbox(t *testing.T) {
	t.Parallel()
	n, _, store := oneStore(t, `allow = ["r.example/*"]`)
	k := kubeletOf{node: n}
	store.AddImage("app", nil)
	for _, handler := range []string{"tenant", "open"} {
		config := n.run("like-"+handler, "open").config
		p := &podOf{handler: handler, config: config, sandbox: store.AddSandbox(fakeruntime.Sandbox{Handler: handler})}
		err := k.create(p, "c", "app", "app")
		if handler == "open" && err != nil {
			t.Error(err)
		}
		if handler == "tenant" {
			wantCode(t, err, codes.PermissionDenied, `handler "tenant"`)
		}
	}
	err := k.create(&podOf{sandbox: "none", config: &runtimeapi.PodSandboxConfig{}}, "c", "app", "app")
	wantCode(t, err, codes.NotFound)
}

// TestNever: what is there runs, and nothing is pulled for pods.
func TestNever(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, open, tenant := way(t, `pull_policy = "never"`)
			id := tenant.AddImage("there", nil)
			a, free := k.run("a", "tenant"), k.run("free", "open")
			for _, policy := range []string{"IfNotPresent", "Never", "Always"} {
				pulls := 0
				if policy == "Always" {
					pulls = 1 // Answered without one.
				}
				k.wantStart(a, policy, "there", policy, pulls)
			}
			if ref, err := k.pullFor(t.Context(), a, "there", login("x")); err != nil || ref != id {
				t.Errorf("a pull of what is there: %q, %v; want %q", ref, err, id)
			}
			_, err := k.start(a, "c", "app", "IfNotPresent")
			wantCode(t, err, codes.FailedPrecondition, `handler "tenant" has images.pull_policy = "never"`, `"app:latest"`, "cri-proxy images pull --handler tenant app:latest")
			if !k.service.single() {
				open.AddImage("app", nil)
				wantCode(t, k.create(a, "c", "app", "app"), codes.FailedPrecondition, `"never"`, "images pull --handler tenant app")
			}
			if got := len(tenant.Calls("PullImage")); got != 0 {
				t.Errorf("%d pulls arrived", got)
			}
			if got := k.counted(); !maps.Equal(got, map[string]int{pullPresent: 2, pullRefused: 1}) {
				t.Errorf("counted %v", got)
			}
			if id, err := k.service.Pull(t.Context(), "tenant", "app"); err != nil || id == "" {
				t.Errorf("by hand: %q, %v", id, err)
			}
			k.wantStart(a, "c", "app", "IfNotPresent", 0)
			k.wantStart(free, "c", "free", "IfNotPresent", 1)
		})
	}
}

// TestPullByHand: it goes to the handler's store, with the runtime's name.
func TestPullByHand(t *testing.T) {
	t.Parallel()
	n, open, tenant := twoStoresOf(t, always)
	for handler, store := range map[string]*fakeruntime.Runtime{"": open, "open": open, "tenant": tenant} {
		store.ClearJournal()
		if id, err := n.service.Pull(t.Context(), handler, "app"); err != nil || id == "" {
			t.Errorf("%q: %q, %v", handler, id, err)
		}
		calls := store.Calls("PullImage")
		if len(calls) != 1 {
			t.Fatalf("%q: %d calls", handler, len(calls))
		}
		request, ok := calls[0].Request.(*runtimeapi.PullImageRequest)
		want := cmp.Or(handler, "open")
		if !ok || request.GetImage().GetRuntimeHandler() != want || request.GetSandboxConfig().GetAnnotations()[handlerAnnotation] != want || request.GetAuth() != nil {
			t.Errorf("%q: arrived %v", handler, request)
		}
	}
	_, err := n.service.Pull(t.Context(), "nope", "app")
	wantCode(t, err, codes.InvalidArgument, `handler "nope" is not configured; known: open, tenant`)
	// It proves nothing about a pod.
	k := kubeletOf{node: n}
	k.wantStart(n.run("a", "tenant"), "c", "app", "IfNotPresent", 1)
}

// TestPlainNodePasses: one store whose handlers have no settings gets what came,
// and nothing else.
func TestPlainNodePasses(t *testing.T) {
	t.Parallel()
	n, _, store := oneStore(t, `pull_policy = "as-requested"`)
	if !n.service.plain {
		t.Fatal("it is not plain")
	}
	k := kubeletOf{node: n, gate: true}
	a := n.run("a", "tenant")
	store.ClearJournal()
	k.wantStart(a, "c", "app", "IfNotPresent", 1)
	var methods []string
	for _, c := range store.Journal() {
		methods = append(methods, c.Short())
	}
	if got, want := strings.Join(methods, " "), "ImageStatus PullImage ImageStatus ImageStatus CreateContainer"; got != want {
		t.Errorf("arrived %s, want %s", got, want)
	}
	if got := k.counted(); !maps.Equal(got, map[string]int{pullPulled: 1}) {
		t.Errorf("counted %v", got)
	}
	for _, images := range []string{
		always, `pull_policy = "never"`, "max_parallel_pulls = 1", `snapshotter = "x"`, `auth_files = ["/x"]`, "credential_providers = \"/x\"\ncredential_provider_bin_dir = \"/x\"",
		`allow = ["*"]`, "require_digest = true",
	} {
		if n, _, _ := oneStore(t, images); n.service.plain {
			t.Errorf("%s just passes", images)
		}
	}
}
