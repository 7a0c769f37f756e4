package real_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testTenants: each handler has the docker configuration of one tenant, and
// nobody else gets to use it.
func testTenants(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	config := func(name string, logins ...rig.Login) string {
		file, err := s.DockerConfig(name, logins...)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("auth_files = [%q]", file)
	}
	wrong := s.Secret("stranger")
	proxy := s.proxy(ctx, t, "tenants", map[string]string{
		"runc": config("red", rig.Login{Key: "https://red.test/v1/", User: s.red.User, Password: s.red.Password}),
		second: config("blue",
			rig.Login{Key: "*.test", User: s.blue.User, Password: s.blue.Password},
			rig.Login{Key: "blue.test/team", User: "stranger", Password: wrong}),
	})
	k := kubelet(t, s.node, proxy.Endpoint())
	for name, test := range map[string]func(context.Context, *testing.T, *stores, *rig.Kubelet){
		"own-file":          testOwnFile,
		"every-match":       testEveryMatch,
		"no-match":          testNoMatch,
		"request-first":     testRequestFirst,
		"pull-on-create":    testPrivateOnCreate,
		"file-changes":      testFileChanges,
		"error-is-not-ours": testAuthError,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(ctx, t, s, k)
		})
	}
}

// repository is the name of the running test's repository.
func repository(t *testing.T) string {
	t.Helper()
	name := imageName(t)
	return name[len("example.test/") : len(name)-len(":v1")]
}

// private pushes an image into a tenant's registry.
func private(ctx context.Context, t *testing.T, tenant *rig.Private, repository string) image {
	t.Helper()
	return push(ctx, t, tenant, tenant.Host+"/"+repository+":v1", rig.Image{})
}

func testOwnFile(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	image := private(ctx, t, s.red, repository(t))
	start(ctx, t, k, sandbox(ctx, t, k, "runc"), rig.KubeletContainer{Image: image.name}, true)
	wantUsers(t, s.red.Front, repository(t), s.red.User)
	wantImage(ctx, t, crictl(t, s.node, s.alpha.Endpoint()), image, true)
	wantImage(ctx, t, crictl(t, s.node, s.beta.Endpoint()), image, false)
}

// testEveryMatch pulls below a path whose own entry is wrong and stands before
// the one that is right.
func testEveryMatch(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	pod, below := sandbox(ctx, t, k, second), "teamwork/"+repository(t)
	image := private(ctx, t, s.blue, below)
	start(ctx, t, k, pod, rig.KubeletContainer{Image: image.name}, true)
	wantUsers(t, s.blue.Front, below, "stranger", s.blue.User)
	aside := repository(t)
	image = private(ctx, t, s.blue, aside)
	start(ctx, t, k, pod, rig.KubeletContainer{Image: image.name}, true)
	wantUsers(t, s.blue.Front, aside, s.blue.User)
}

// testNoMatch uses the other tenant's image: without a match there is one pull
// without credentials, and with a match that is wrong there is none.
func testNoMatch(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	blue := private(ctx, t, s.blue, repository(t))
	_, err := k.Start(ctx, sandbox(ctx, t, k, "runc"), rig.KubeletContainer{Image: blue.name})
	wantRefused(t, err)
	wantUsers(t, s.blue.Front, repository(t))
	if len(s.blue.Requests(repository(t))) == 0 {
		t.Error("without a match no pull was tried at all")
	}
	red := private(ctx, t, s.red, repository(t))
	_, err = k.Start(ctx, sandbox(ctx, t, k, second), rig.KubeletContainer{Image: red.name})
	wantRefused(t, err)
	wantUsers(t, s.red.Front, repository(t), s.blue.User)
	for _, store := range []*rig.Containerd{s.alpha, s.beta} {
		wantImage(ctx, t, crictl(t, s.node, store.Endpoint()), red, false)
		wantImage(ctx, t, crictl(t, s.node, store.Endpoint()), blue, false)
	}
}

// testRequestFirst sends credentials along: they are the only ones.
func testRequestFirst(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	image, pod := private(ctx, t, s.red, repository(t)), sandbox(ctx, t, k, "runc")
	wrong := &runtimeapi.AuthConfig{Username: "wrong", Password: s.Secret("wrong")}
	_, err := k.Start(ctx, pod, rig.KubeletContainer{Image: image.name, Auths: []*runtimeapi.AuthConfig{wrong}})
	wantRefused(t, err)
	wantUsers(t, s.red.Front, repository(t), "wrong")
	other := sandbox(ctx, t, k, second)
	start(ctx, t, k, other, rig.KubeletContainer{Image: image.name, Auths: []*runtimeapi.AuthConfig{wrong, s.red.Auth()}}, true)
	wantUsers(t, s.red.Front, repository(t), "wrong", s.red.User)
	// The kubelet does not, but crictl can send the two as one.
	pair := base64.StdEncoding.EncodeToString([]byte(s.red.User + ":" + s.red.Password))
	if _, err := k.Pull(ctx, other, image.name, &runtimeapi.AuthConfig{Auth: pair}); err != nil {
		t.Error(err)
	}
}

// testPrivateOnCreate creates a container without a pull before it.
func testPrivateOnCreate(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	image, pod := private(ctx, t, s.red, repository(t)), sandbox(ctx, t, k, "runc")
	_, err := k.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.ID, Config: rig.Container(pod.Config, "app", image.name), SandboxConfig: pod.Config,
	})
	if err != nil {
		t.Error(err)
	}
	wantUsers(t, s.red.Front, repository(t), s.red.User)
	other := sandbox(ctx, t, k, second)
	_, err = k.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: other.ID, Config: rig.Container(other.Config, "app", image.name), SandboxConfig: other.Config,
	})
	wantRefused(t, err)
}

// testFileChanges gives the file another content while the proxy runs.
func testFileChanges(ctx context.Context, t *testing.T, s *stores, _ *rig.Kubelet) {
	t.Helper()
	login := rig.Login{Key: "red.test", User: "former", Password: s.Secret("former")}
	file, err := s.DockerConfig("changes", login)
	if err != nil {
		t.Fatal(err)
	}
	proxy := s.proxy(ctx, t, "changes", map[string]string{"runc": fmt.Sprintf("auth_files = [%q]", file)})
	k := kubelet(t, s.node, proxy.Endpoint())
	image, pod := private(ctx, t, s.red, repository(t)), sandbox(ctx, t, k, "runc")
	_, err = k.Start(ctx, pod, rig.KubeletContainer{Image: image.name})
	wantRefused(t, err)
	login.User, login.Password = s.red.User, s.red.Password
	if _, err := s.DockerConfig("changes", login); err != nil {
		t.Fatal(err)
	}
	start(ctx, t, k, pod, rig.KubeletContainer{Image: image.name}, true)
	wantUsers(t, s.red.Front, repository(t), "former", s.red.User)
}

// testAuthError compares the errors of credentials that are wrong with those of
// the same calls to containerd.
func testAuthError(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet) {
	t.Helper()
	image := private(ctx, t, s.red, repository(t))
	direct := kubelet(t, s.node, s.beta.Endpoint())
	for name, auth := range map[string]*runtimeapi.AuthConfig{
		"password": {Username: s.red.User, Password: s.Secret(s.red.User)},
		"token":    {IdentityToken: s.Secret("token")},
		// Containerd's error shows what it cannot read. That is for the caller's eyes only.
		"auth": {Auth: base64.StdEncoding.EncodeToString([]byte(s.SecretInErrors("no-pair")))},
	} {
		directly, want := direct.Pull(ctx, sandbox(ctx, t, direct, second), image.name, auth)
		proxied, got := k.Pull(ctx, sandbox(ctx, t, k, second), image.name, auth)
		if want == nil || got == nil {
			t.Errorf("%s: containerd answers %q, the proxy %q: want an error of both", name, directly, proxied)
			continue
		}
		wantSameError(t, name, got, want)
		t.Logf("%s: %s", name, status.Code(got))
	}
}

// wantSameError compares code and message, literally.
func wantSameError(t *testing.T, what string, got, want error) {
	t.Helper()
	g, w := status.Convert(got), status.Convert(want)
	if g.Code() != w.Code() || g.Message() != w.Message() {
		t.Errorf("%s: through the proxy:\n  %s: %s\ndirectly:\n  %s: %s", what, g.Code(), g.Message(), w.Code(), w.Message())
	}
}

// testAlways: under "always" each pod proves that it may use an image, though
// another has it on the node already.
func testAlways(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	keys := `pull_policy = "always"`
	proxy := s.proxy(ctx, t, "always", map[string]string{"runc": keys, second: keys})
	for name, gate := range map[string]bool{"gate-off": false, "gate-on": true} {
		for handler, tenants := range map[string][2]*rig.Private{"runc": {s.red, s.blue}, second: {s.blue, s.red}} {
			t.Run(name+"/"+handler, func(t *testing.T) {
				t.Parallel()
				k := kubelet(t, s.node, proxy.Endpoint())
				k.Gate = gate
				testProof(ctx, t, k, handler, tenants[0], tenants[1])
			})
		}
	}
}

func testProof(ctx context.Context, t *testing.T, k *rig.Kubelet, handler string, owner, stranger *rig.Private) {
	t.Helper()
	image := private(ctx, t, owner, repository(t))
	with := func(auths ...*runtimeapi.AuthConfig) rig.KubeletContainer {
		return rig.KubeletContainer{Image: image.name, Auths: auths}
	}
	pod := sandbox(ctx, t, k, handler)
	start(ctx, t, k, pod, with(owner.Auth()), true)
	start(ctx, t, k, pod, with(owner.Auth()), true)
	for _, auths := range [][]*runtimeapi.AuthConfig{nil, {stranger.Auth()}} {
		other := sandbox(ctx, t, k, handler)
		_, err := k.Start(ctx, other, with(auths...))
		wantRefused(t, err)
		never := with()
		never.Policy = rig.Never
		if _, err := k.Start(ctx, other, never); !errors.Is(err, rig.ErrNeverPull) {
			t.Errorf("a pod that never pulls got %v, want that the image is absent", err)
		}
	}
	// The pod that has proved it is told the truth after its pull.
	again := sandbox(ctx, t, k, handler)
	if _, err := k.Images.PullImage(ctx, &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: image.name, Annotations: again.Config.GetAnnotations()}, Auth: owner.Auth(), SandboxConfig: again.Config,
	}); err != nil {
		t.Fatal(err)
	}
	if !present(ctx, t, k, again, image.name) {
		t.Error("after its own pull a pod is told that the image is absent")
	}
	if present(ctx, t, k, sandbox(ctx, t, k, handler), image.name) {
		t.Error("a pod that pulled nothing is told that the image is present")
	}
}

// testPolicies: what the other rules of a handler refuse, with the rule's name.
func testPolicies(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	proxy := s.proxy(ctx, t, "policies", map[string]string{
		"runc": "pull_policy = \"never\"",
		second: "allow = [\"example.test/*\"]\nrequire_digest = true",
	})
	k := kubelet(t, s.node, proxy.Endpoint())
	image := pushImage(ctx, t, s.node)
	never, digest := sandbox(ctx, t, k, "runc"), sandbox(ctx, t, k, second)
	_, err := k.Start(ctx, never, rig.KubeletContainer{Image: image.name})
	wantRefused(t, err, "pull_policy", "never")
	run(ctx, t, crictl(t, s.node, s.alpha.Endpoint()), "pull", image.name)
	start(ctx, t, k, never, rig.KubeletContainer{Image: image.name}, false)
	start(ctx, t, k, never, rig.KubeletContainer{Image: image.name, Policy: rig.Always}, true)

	_, err = k.Start(ctx, digest, rig.KubeletContainer{Image: image.name})
	wantRefused(t, err, "require_digest")
	_, err = k.Start(ctx, digest, rig.KubeletContainer{Image: "elsewhere.test/app@" + image.Digest})
	wantRefused(t, err, "allow")
	start(ctx, t, k, digest, rig.KubeletContainer{Image: image.name + "@" + image.Digest}, true)
	if asked := s.faulty.Requests("elsewhere"); len(asked) > 0 {
		t.Errorf("a registry was asked for what is not allowed: %v", slices.Clone(asked))
	}
}
