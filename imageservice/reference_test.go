package imageservice

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// TestPullable: which of a container's two names for its image is pulled.
func TestPullable(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0a", 32)
	for _, c := range []struct{ image, user, want string }{
		{"", "", ""},
		{"app", "", "app"},
		{"app:1", "app", "app:1"},
		{"sha256:" + digest, "app", "app"},
		{digest, "app", "app"},
		{digest, "", ""},
		{"sha256:" + digest, "sha256:" + digest, ""},
		{"sha256:0a", "", ""},
		{"r.example/app@sha256:" + digest, "", "r.example/app@sha256:" + digest},
		{strings.ToUpper(digest), "", strings.ToUpper(digest)}, // The runtime says what is wrong with it.
	} {
		if got := pullable(&runtimeapi.ImageSpec{Image: c.image, UserSpecifiedImage: c.user}); got != c.want {
			t.Errorf("image %q of the user's %q: %q, want %q", c.image, c.user, got, c.want)
		}
	}
	if got := pullable(nil); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

// TestReference: names that the kubelet uses for one image compare equal.
func TestReference(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, same := range [][]string{
		{"app", "app:latest", "library/app", "docker.io/app", "docker.io/library/app:latest", "index.docker.io/library/app"},
		{"r.example:5000/a/b", "r.example:5000/a/b:latest"},
		{"app:1", "docker.io/library/app:1"},
		{"app@" + digest, "app:1@" + digest},
		{digest},
		{""},
		{"UPPER"},
		{"app:"},
		{strings.Repeat("0a", 32)},
	} {
		want := routing.Reference(same[0])
		for _, name := range same {
			if got := routing.Reference(name); got != want {
				t.Errorf("%q is %q, but %q is %q", name, got, same[0], want)
			}
		}
	}
}

// FuzzReference: the normal form is final, is either a reference or what came,
// and an id is never turned into a name.
func FuzzReference(f *testing.F) {
	digest := strings.Repeat("0a", 32)
	for _, seed := range []string{
		"", "app", "app:1", "r.example:5000/a/b", "a@sha256:" + digest, "a:1@sha256:" + digest, "sha256:" + digest, digest, "sha256:0a", "UPPER", "a b", ":", "@", "/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, image string) {
		normal := routing.Reference(image)
		if again := routing.Reference(normal); again != normal {
			t.Errorf("%q is %q, and that is %q", image, normal, again)
		}
		if normal != image {
			if _, err := reference.ParseNamed(normal); err != nil {
				t.Errorf("%q became %q: %v", image, normal, err)
			}
		}
		hex := strings.TrimPrefix(image, "sha256:")
		if len(hex) == len(digest) && strings.Trim(hex, "0123456789abcdef") == "" && (normal != image || !isID(image)) {
			t.Errorf("the id %q became %q", image, normal)
		}
		name := pullable(&runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: "app"})
		if name != image && name != "app" || isID(name) {
			t.Errorf("of the image %q, %q is pulled", image, name)
		}
	})
}
