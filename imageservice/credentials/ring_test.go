package credentials

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type matchCase struct {
	name, image string
	locations   []string
	want        []string // Of locations, in the order in which they are to be tried.
}

func one(name, location, image string) matchCase {
	return matchCase{name, image, []string{location}, []string{location}}
}

func none(name, location, image string) matchCase {
	return matchCase{name, image, []string{location}, nil}
}

func matchCases() []matchCase {
	return slices.Concat(hostCases(), portCases(), pathCases(), keyCases(), imageCases(), hubCases(), severalCases())
}

// hostCases: hosts, part by part.
func hostCases() []matchCase {
	return []matchCase{
		one("plain host", "registry.example.com", "registry.example.com/a"),
		none("other host", "registry.example.com", "registry.example.org/a"),
		none("parent of the host", "example.com", "registry.example.com/a"),
		none("child of the host", "registry.example.com", "example.com/a"),
		one("glob first", "*.kubernetes.io", "abc.kubernetes.io/a"),
		none("glob first, no part for it", "*.kubernetes.io", "kubernetes.io/a"),
		none("glob is one part", "*.kubernetes.io", "a.b.kubernetes.io/a"),
		one("glob in the middle", "prefix.*.io", "prefix.kubernetes.io/a"),
		none("glob in the middle, other start", "suffix.*.io", "prefix.docker.io/a"),
		one("glob last", "prefix.kubernetes.*", "prefix.kubernetes.io/a"),
		none("glob in the last part", "prefix.docker.c*", "prefix.docker.io/a"),
		one("glob before a suffix", "*-good.kubernetes.io", "prefix-good.kubernetes.io/a"),
		none("glob before another suffix", "*-good.kubernetes.io", "prefix-bad.kubernetes.io/a"),
		one("glob after a prefix", "app*.k8s.io", "app1.k8s.io/a"),
		one("glob for nothing", "app*.k8s.io", "app.k8s.io/a"),
		one("glob within a part", "*kubernetes.io", "kubernetes.io/a"),
		none("glob within a part and one more", "*kubernetes.io", "a.kubernetes.io/a"),
		none("two globs, one part", "*.*.kubernetes.io", "prefix.kubernetes.io/a"),
		one("three globs", "*.*.*.kubernetes.io", "a.b.c.kubernetes.io/a"),
		none("start of a name", "k*.io", "quay.io/a"),
		none("a question mark is no glob but begins a query", "k?s.example.io", "k8s.example.io/a"),
		one("only globs", "*.*", "quay.io/a"),
		none("one glob is no registry with a dot", "*", "quay.io/a"),
		one("one glob, one part", "*", "localhost/a"),
		none("bad glob", "qu[ay.io", "quay.io/a"),
		none("case counts", "Registry.example.com", "registry.example.com/a"),
		one("an address", "10.0.0.1:5000", "10.0.0.1:5000/a"),
		one("globs for an address", "10.*.*.1:5000", "10.0.0.1:5000/a"),
	}
}

// portCases: ports.
func portCases() []matchCase {
	return []matchCase{
		one("port", "registry.example.com:5000", "registry.example.com:5000/a"),
		none("other port", "registry.example.com:5000", "registry.example.com:5001/a"),
		none("port only in the image", "registry.example.com", "registry.example.com:5000/a"),
		none("port only in the key", "registry.example.com:5000", "registry.example.com/a"),
		none("the scheme's port is a port", "registry.example.com:443", "registry.example.com/a"),
		none("a glob is no port", "registry.example.com:*", "registry.example.com:5000/a"),
		one("port, glob and path", "*.kubernetes.io:1111/blah", "prefix.kubernetes.io:1111/blah"),
		none("glob and path, port only in the image", "prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar"),
		one("localhost with port", "localhost:5000", "localhost:5000/a"),
	}
}

// pathCases: paths.
func pathCases() []matchCase {
	return []matchCase{
		one("path", "quay.io/foo", "quay.io/foo"),
		one("path and more", "quay.io/foo", "quay.io/foo/bar"),
		one("path is a prefix of letters", "quay.io/foo", "quay.io/foobar/x"),
		none("path ends in a slash", "quay.io/foo/", "quay.io/foobar/x"),
		one("path ends in a slash, below it", "quay.io/foo/", "quay.io/foo/x"),
		none("path ends in a slash, itself", "quay.io/foo/", "quay.io/foo"),
		none("path is longer", "quay.io/foo/bar", "quay.io/foo"),
		none("other path", "quay.io/foo", "quay.io/bar"),
		none("a glob is no path", "quay.io/*", "quay.io/foo"),
		one("glob and path", "prefix.*.io/path", "prefix.docker.io/path/subpath"),
	}
}

// keyCases: schemes and versions of the API in the key.
func keyCases() []matchCase {
	return []matchCase{
		one("https", "https://hello.kubernetes.io", "hello.kubernetes.io/a"),
		one("http", "http://hello.kubernetes.io", "hello.kubernetes.io/a"),
		one("slash", "https://hello.kubernetes.io/", "hello.kubernetes.io/a"),
		one("v1", "https://*.docker.io/v1/", "prefix.docker.io/path"),
		one("v2", "https://*.docker.io/v2/", "prefix.docker.io/path"),
		one("v2 and a path", "quay.io/v2/foo", "quay.io/foo/x"),
		none("v1 without slash is a path", "quay.io/v1", "quay.io/foo"),
		one("v1 without slash as a path", "quay.io/v1", "quay.io/v1/foo"),
		none("v3 is a path", "quay.io/v3/", "quay.io/foo"),
		none("other scheme", "ftp://quay.io", "quay.io/foo"),
		none("no URL", "quay.io:port", "quay.io/foo"),
		one("user in the key", "https://me@quay.io", "quay.io/foo"),
		one("query in the key", "quay.io/foo?x=y", "quay.io/foo"),
	}
}

// imageCases: names of images.
func imageCases() []matchCase {
	return []matchCase{
		one("tag", "quay.io/foo", "quay.io/foo:v1"),
		one("digest", "quay.io/foo", "quay.io/foo@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
		one("tag and digest", "quay.io", "quay.io/foo:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
		none("tag is not matched", "quay.io/foo:v1", "quay.io/foo:v1"),
		one("short name", "docker.io/library/busybox", "busybox"),
		one("short name's registry", "docker.io", "busybox:1"),
		one("user's name", "docker.io/me", "me/app"),
	}
}

// hubCases: docker Hub.
func hubCases() []matchCase {
	return []matchCase{
		one("hub by its old key", "https://index.docker.io/v1/", "busybox"),
		one("hub's key and v2", "https://index.docker.io/v2/", "me/app"),
		one("hub's plain key", "index.docker.io", "docker.io/library/busybox"),
		one("hub's other name", "https://index.docker.io/v1/", "index.docker.io/library/busybox"),
		none("hub's key with a path", "index.docker.io/library", "busybox"),
		none("hub's key without last slash", "https://index.docker.io/v1", "busybox"),
		none("hub's key is not for others", "https://index.docker.io/v1/", "world.mesos.org/foo/bar"),
		none("a name that ends like hub's", "https://index.docker.io/v1/", "myhostdocker.io/foo"),
		none("a mirror with port", "https://index.docker.io/v1/", "registry:5000/foo/bar"),
		one("a registry without dot is taken for hub", "https://index.docker.io/v1/", "localhost/foo"),
		none("hub's registry has another name", "registry-1.docker.io", "busybox"),
		{"hub's fallback only without a match", "busybox", []string{"https://index.docker.io/v1/", "docker.io"}, []string{"docker.io"}},
		{"hub's fallback after a miss", "busybox", []string{"https://index.docker.io/v1/", "docker.io/me"}, []string{"https://index.docker.io/v1/"}},
	}
}

// severalCases: several.
func severalCases() []matchCase {
	return []matchCase{
		{
			"most specific first", "my-registry.io/images/subpath/my-image",
			[]string{"my-registry.io/images", "my-registry.io", "my-registry.io/images/subpath", "my-registry.io/other"},
			[]string{"my-registry.io/images/subpath", "my-registry.io/images", "my-registry.io"},
		},
		{
			"wildcard after letters", "a.kubernetes.io/x",
			[]string{"*.kubernetes.io", "a.kubernetes.io", "a.*.io"},
			[]string{"a.kubernetes.io", "a.*.io", "*.kubernetes.io"},
		},
		{
			"a longer wildcard is still after", "a.kubernetes.io/x/y",
			[]string{"*.kubernetes.io/x/y", "a.kubernetes.io"},
			[]string{"a.kubernetes.io", "*.kubernetes.io/x/y"},
		},
		{
			"one key in several spellings", "quay.io/x",
			[]string{"quay.io", "https://quay.io", "http://quay.io/", "https://quay.io/v2/"},
			[]string{"http://quay.io/", "https://quay.io", "https://quay.io/v2/", "quay.io"},
		},
		{"a bad key does not hide a good one", "quay.io/x", []string{"quay.io:port", "quay.io"}, []string{"quay.io"}},
		{"no keys", "quay.io/x", nil, nil},
	}
}

// authFileOf is a config.json in which each location has itself as its user.
func authFileOf(t *testing.T, locations ...string) string {
	t.Helper()
	auths := map[string]map[string]string{}
	for _, location := range locations {
		auths[location] = map[string]string{"username": location, "password": "secret"}
	}
	content, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "config.json", string(content))
}

func TestMatching(t *testing.T) {
	t.Parallel()
	if n := len(matchCases()); n < 60 {
		t.Fatalf("%d cases, want at least 60", n)
	}
	for _, tt := range matchCases() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, err := New(Options{AuthFiles: []string{authFileOf(t, tt.locations...)}, Log: new(logs).entry()})
			if err != nil {
				t.Fatal(err)
			}
			found, err := k.Lookup(t.Context(), tt.image)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, usernames(found)); diff != "" {
				t.Errorf("Lookup(%q) (-want +got):\n%s", tt.image, diff)
			}
		})
	}
}

// compare asks the kubelet's keyring and ours.
func compare(t *testing.T, repository string, locations ...string) {
	t.Helper()
	var theirs kubeletKeyring
	var entries []entry
	for _, location := range locations {
		c := Credential{Username: location}
		theirs.add(location, c)
		entries = append(entries, entry{location: location, credential: c})
	}
	var ours ring
	_ = ours.add(entries) //nolint:errcheck // Keys that are no URLs are among the cases.
	want, got := usernames(theirs.lookup(repository)), usernames(ours.lookup(repository))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lookup(%q) in %q (-kubelet +ours):\n%s", repository, locations, diff)
	}
}

// TestMatchesAsTheKubelet compares every key with every image of the table.
func TestMatchesAsTheKubelet(t *testing.T) {
	t.Parallel()
	var all []string
	for _, tt := range matchCases() {
		all = append(all, tt.locations...)
	}
	for _, tt := range matchCases() {
		compare(t, tt.image, all...)
		for _, location := range all {
			compare(t, tt.image, location)
		}
	}
}

func FuzzMatching(f *testing.F) {
	for _, tt := range matchCases() {
		first, second := "", "quay.io"
		if len(tt.locations) > 0 {
			first = tt.locations[0]
		}
		if len(tt.locations) > 1 {
			second = tt.locations[1]
		}
		f.Add(tt.image, first, second)
	}
	f.Fuzz(func(t *testing.T, repository, first, second string) {
		compare(t, repository, first, second)
	})
}
