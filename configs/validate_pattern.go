package configs

import (
	"strings"

	"github.com/distribution/reference"
)

// pattern refuses a pattern that no reference can match, which would lock out what it was written for. References are complete
// when they are compared: with a registry, and with a tag or a digest.
func (v *validator) pattern(p path, pattern string) {
	if pattern == "" {
		v.notEmpty(p, pattern)
		return
	}
	if strings.ContainsFunc(pattern, inNoReference) {
		v.report(p, "is %q, which has characters that no reference has; only * stands for others", pattern)
		return
	}
	fixed, _, wild := strings.Cut(pattern, "*")
	if wild && possibleStart(fixed) {
		return
	}
	named, err := reference.ParseDockerRef(fixed)
	switch {
	case !wild && err == nil && named.String() == pattern:
	case !wild && err == nil:
		v.report(p, "is %q, which no reference matches in full; write %q, or use * for what may differ", pattern, named.String())
	default:
		v.report(p, "is %q, which no reference matches; begin with the registry, like \"docker.io/library/busybox:*\"", pattern)
	}
}

func inNoReference(c rune) bool {
	letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	return !letter && !strings.ContainsRune("._-/:@*[]", c)
}

// possibleStart tells whether a whole reference can begin so: with a registry, by the rule that tells it from the first part of a
// repository (github.com/distribution/reference, splitDockerDomain), and by Docker Hub's one name.
func possibleStart(fixed string) bool {
	registry, _, whole := strings.Cut(fixed, "/")
	if !whole {
		return true
	}
	return registry != "index.docker.io" &&
		(registry == "localhost" || strings.ContainsAny(registry, ".:") || strings.ToLower(registry) != registry)
}
