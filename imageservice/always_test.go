package imageservice

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

const always = `pull_policy = "always"`

// TestAlwaysEveryContainer: each container of such a handler is preceded by a
// pull, although the image is there; other handlers' are not.
func TestAlwaysEveryContainer(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, open, tenant := way(t, always)
			open.AddImage("app", nil)
			tenant.AddImage("app", nil)
			tenant.AddImage("app:1", nil)
			a, b := k.run("a", "tenant"), k.run("b", "tenant")
			free := k.run("free", "open")
			k.wantStart(a, "init", "app", "IfNotPresent", 1)
			k.wantStart(a, "main", "app", "IfNotPresent", 1)
			k.wantStart(b, "main", "app", "IfNotPresent", 1)
			k.wantStart(a, "main-again", "app", "IfNotPresent", 1)
			k.wantStart(a, "other", "app:1", "IfNotPresent", 1)
			k.wantStart(a, "asks-always", "app", "Always", 1)
			k.wantStart(free, "main", "app", "IfNotPresent", 0)
			k.wantStart(free, "never", "app", "Never", 0)
			if got := len(tenant.Calls("PullImage")); got != 6 {
				t.Errorf("%d pulls, want 6", got)
			}
		})
	}
}

// TestAlwaysAskedTwice: between the pull and the create the image is there, for
// that pod alone.
func TestAlwaysAskedTwice(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _, _ := way(t, always)
			a, b := k.run("a", "tenant"), k.run("b", "tenant")
			if _, pulls, err := k.ensure(a, "app", "IfNotPresent"); err != nil || pulls != 1 {
				t.Fatal(pulls, err)
			}
			k.wantStart(b, "c", "app", "IfNotPresent", 1)
			k.wantStart(a, "c", "app", "IfNotPresent", 0) // Asked again, as after a failure of something else.
			k.wantStart(a, "d", "app", "IfNotPresent", 1)
		})
	}
}

// TestAlwaysWithoutPull: who cannot pull cannot run, whoever else could.
func TestAlwaysWithoutPull(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _, tenant := way(t, always)
			tenant.Configure(func(o *fakeruntime.Options) { o.Pull = accepts("good") })
			owner, thief := k.run("owner", "tenant", login("bad"), login("good")), k.run("thief", "tenant", login("bad"))
			k.wantStart(owner, "c", "app", "IfNotPresent", 2)
			ref, err := k.status(&runtimeapi.ImageSpec{Image: "app"})
			if err != nil || ref == nil {
				t.Fatalf("%v, %v", ref, err)
			}
			_, err = k.start(thief, "c", "app", "IfNotPresent")
			wantCode(t, err, codes.Unknown, "401")
			if _, err := k.start(thief, "c", "app", "Never"); !errors.Is(err, errNeverPull) {
				t.Errorf("imagePullPolicy Never: %v", err)
			}
			for _, by := range []string{"app", ref.GetId(), ref.GetRepoDigests()[0]} {
				wantCode(t, k.create(thief, "c", "app", by), codes.FailedPrecondition,
					`handler "tenant"`, `images.pull_policy = "always"`, "ns/thief", `"app"`, "imagePullPolicy Never")
			}
			if got := len(tenant.Calls("CreateContainer")); got != 1 {
				t.Errorf("%d creates arrived, want the owner's alone", got)
			}
		})
	}
}

func login(password string) *runtimeapi.AuthConfig {
	return &runtimeapi.AuthConfig{Username: "user", Password: password}
}

// accepts is a registry that wants one of these passwords, "" being nobody.
func accepts(passwords ...string) func(context.Context, *runtimeapi.PullImageRequest) error {
	return func(_ context.Context, request *runtimeapi.PullImageRequest) error {
		for _, password := range passwords {
			if request.GetAuth().GetPassword() == password {
				return nil
			}
		}
		return status.Error(codes.Unknown, `pull access denied for user "`+request.GetAuth().GetUsername()+`": 401 Unauthorized`)
	}
}

// TestAlwaysVolumes: an image volume is pulled once for the containers that the
// kubelet starts in one go, and anew for those that it starts later.
func TestAlwaysVolumes(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _, _ := way(t, always)
			a := k.run("a", "tenant")
			for _, round := range []string{"first", "second"} {
				ref, pulls, err := k.ensure(a, "data", "IfNotPresent")
				if err != nil || pulls != 1 {
					t.Fatalf("%s: %d pulls of the volume, %v; want 1", round, pulls, err)
				}
				for _, name := range []string{"x", "y"} {
					if pulls, err := k.start(a, round+name, "app", "IfNotPresent", volume("data", ref)); err != nil || pulls != 1 {
						t.Errorf("%s %s: %d pulls, %v; want 1", round, name, pulls, err)
					}
				}
				// A container of the volume's image needs a pull of its own by now.
				k.wantStart(a, round+"z", "data", "IfNotPresent", 1)
			}
			b := k.run("b", "tenant")
			ref, _, err := k.ensure(b, "app", "IfNotPresent")
			if err != nil {
				t.Fatal(err)
			}
			wantCode(t, k.create(b, "c", "app", ref, volume("data", "data")), codes.FailedPrecondition, `"data"`)
		})
	}
}

// TestAlwaysMovedTag: a pull of what the tag meant then is no proof for what it
// means now.
func TestAlwaysMovedTag(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, _, tenant := way(t, always)
			a := k.run("a", "tenant")
			if _, _, err := k.ensure(a, "app", "IfNotPresent"); err != nil {
				t.Fatal(err)
			}
			tenant.Publish("app", &runtimeapi.Image{Id: "sha256:" + strings.Repeat("b", 64)})
			k.wantStart(k.run("b", "tenant"), "c", "app", "IfNotPresent", 1)
			_, err := k.start(a, "c", "app", "IfNotPresent")
			wantCode(t, err, codes.FailedPrecondition)
			k.wantStart(a, "c", "app", "IfNotPresent", 1) // The kubelet's next try.
		})
	}
}

// TestAlwaysProxyRestarted: a proxy that does not know of the pull refuses the
// create, and the kubelet's next try succeeds.
func TestAlwaysProxyRestarted(t *testing.T) {
	t.Parallel()
	for gate, on := range gates() {
		t.Run(gate, func(t *testing.T) {
			t.Parallel()
			n, open, tenant := twoStoresOf(t, always)
			k := kubeletOf{n, on}
			a := k.run("a", "tenant")
			ref, _, err := k.ensure(a, "app", "IfNotPresent")
			if err != nil {
				t.Fatal(err)
			}
			k.node = startNode(t, nodeConfig(open, tenant, always))
			wantCode(t, k.create(a, "c", "app", ref), codes.FailedPrecondition, "tries again")
			k.wantStart(a, "c", "app", "IfNotPresent", 1)
		})
	}
}

// TestAlwaysKubeletRestarted: a kubelet whose time stamps are new, or a pod
// whose annotations were edited, needs one more try at most, and never runs a
// container without a pull.
func TestAlwaysKubeletRestarted(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, open, tenant := way(t, always)
			open.AddImage("app", nil)
			a, free := k.run("a", "tenant"), k.run("free", "open")
			k.wantStart(a, "c", "app", "IfNotPresent", 1)
			k.wantStart(free, "c", "app", "IfNotPresent", 0)
			for name, changed := range map[string]*podOf{
				"restarted": a.with("kubernetes.io/config.seen", "2026-02-02T00:00:00Z a"), "edited": a.with("note", "new"),
			} {
				before := len(tenant.Calls("PullImage"))
				if _, err := k.start(changed, name, "app", "IfNotPresent"); err != nil {
					wantCode(t, err, codes.FailedPrecondition)
					k.wantStart(changed, name, "app", "IfNotPresent", 1)
				}
				if got := len(tenant.Calls("PullImage")) - before; got != 1 {
					t.Errorf("%s: %d pulls, want 1", name, got)
				}
				k.wantStart(changed, name+"-again", "app", "IfNotPresent", 1)
			}
			k.wantStart(free.with("kubernetes.io/config.seen", "2026-02-02T00:00:00Z free"), "d", "app", "Never", 0)
		})
	}
}

// TestProofsAreBounded: what pods pulled is forgotten with them.
func TestProofsAreBounded(t *testing.T) {
	t.Parallel()
	var p proofs
	for n := range 10_000 {
		p.add(proofKey{string(rune(n)), "app"}, "id", func(sandbox string) bool { return sandbox == string(rune(0)) })
	}
	if len(p.all) > prunePending+2 || !p.fresh(proofKey{string(rune(0)), "app"}) {
		t.Errorf("%d are kept, the living one %t", len(p.all), p.fresh(proofKey{string(rune(0)), "app"}))
	}
}

// TestAlwaysImageGone: what was removed after the pull is not pulled for the
// create, but by the kubelet's next try.
func TestAlwaysImageGone(t *testing.T) {
	t.Parallel()
	n, _, tenant := twoStoresOf(t, always)
	k := kubeletOf{node: n}
	a := k.run("a", "tenant")
	ref, _, err := k.ensure(a, "app", "IfNotPresent")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, k.create(a, "c", "app", ref), codes.FailedPrecondition, `"app" is no longer on backend "b"`, `"always"`, "tries again")
	wantPulls(t, map[*fakeruntime.Runtime]int{tenant: 1})
	k.wantStart(a, "c", "app", "IfNotPresent", 1)
}
