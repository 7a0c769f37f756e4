package fakeruntime

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// reference is an image's name in full: "docker.io/library/busybox:latest". Only one of tag and digest is set; where a
// name has both, the digest counts, as in containerd.
type reference struct {
	repository string
	tag        string
	digest     string
}

func parseReference(name string) reference {
	var ref reference
	name, ref.digest, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, ref.tag = name[:colon], name[colon+1:]
	}
	switch {
	case ref.digest != "":
		ref.tag = ""
	case ref.tag == "":
		ref.tag = "latest"
	}
	ref.repository = normalRepository(name)
	return ref
}

// normalRepository adds Docker Hub's registry and "library/" where they were left out.
func normalRepository(name string) string {
	host, rest, ok := strings.Cut(name, "/")
	if !ok || (!strings.ContainsAny(host, ".:") && host != "localhost") {
		host, rest = "docker.io", name
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest
}

func (r reference) String() string {
	if r.digest != "" {
		return r.repository + "@" + r.digest
	}
	return r.repository + ":" + r.tag
}

// digestOf is how this package makes up digests.
func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return digestPrefix + hex.EncodeToString(sum[:])
}

const digestPrefix = "sha256:"
