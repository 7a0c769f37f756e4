package configs

import (
	"fmt"
	"strings"
	"testing"
)

// TestAllowPatterns: a pattern that can match nothing is reported, with what to write.
func TestAllowPatterns(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0a", 32)
	for pattern, want := range map[string]string{
		"*":                                    "",
		"*/base/*":                             "",
		"registry.example.org/*":               "",
		"registry.example.org/base/app:1":      "",
		"registry.example.org*":                "",
		"r:5000/a*":                            "",
		"localhost/*":                          "",
		"[::1]:5000/*":                         "",
		"UPPER/app:*":                          "",
		"*@sha256:*":                           "",
		"docker.io/library/busybox:*":          "",
		"docker.io/library/busybox@" + digest:  "",
		"busy*":                                "",
		"":                                     "is empty",
		"busybox":                              `write "docker.io/library/busybox:latest"`,
		"busybox:1":                            `write "docker.io/library/busybox:1"`,
		"registry.example.org/app":             `write "registry.example.org/app:latest"`,
		"registry.example.org/app:1@" + digest: `write "registry.example.org/app@` + digest + `"`,
		"library/*":                            "begin with the registry",
		"team/app:*":                           "begin with the registry",
		"/app*":                                "begin with the registry",
		"index.docker.io/library/*":            "begin with the registry",
		"registry.example.org/":                "begin with the registry",
		"registry.example.org/app:{1,2}":       "characters",
		"registry.example.org/app?":            "characters",
		"registry.example.org/app *":           "characters",
	} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			file := fmt.Sprintf("version = 1\ndefault_handler = \"h\"\n[backends.b]\nendpoint = \"/b\"\n[handlers.h]\nbackend = \"b\"\nimages.allow = [%q]\n", pattern)
			_, err := Parse("x.toml", []byte(file))
			if want == "" && err != nil {
				t.Error(err)
			}
			if want != "" && (err == nil || !strings.Contains(err.Error(), "x.toml:7:17: handlers.h.images.allow[0]: ") || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}
