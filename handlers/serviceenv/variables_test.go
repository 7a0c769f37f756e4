package serviceenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestSelected(t *testing.T) {
	t.Parallel()
	all := []*corev1.Service{
		service("default", "kubernetes", "10.0.0.1", 443),
		service("default", "web", "10.0.0.2", 80),
		service("shop", "web", "10.1.0.2", 80),
		service("shop", "db", "10.1.0.1", 5432),
		service("shop", "headless", "None", 80),
		service("shop", "elsewhere", ""),
		service("shop", "portless", "10.1.0.9"),
		service("own", "kubernetes", "10.2.0.1", 6443),
		service("own-headless", "kubernetes", "None", 6443),
		service("shared", "db", "10.3.0.1", 3306),
		service("shared", "cache", "10.3.0.2", 11211),
		service("shared", "kubernetes", "10.3.0.3", 1),
		service("more", "cache", "10.4.0.2", 11211),
		service("more", "queue", "10.4.0.3", 5672),
	}
	for name, tt := range map[string]struct {
		namespace string
		further   []string
		want      string
	}{
		"by name, the API server's after them": {"shop", nil, "shop/db shop/web default/kubernetes"},
		"default":                              {"default", nil, "default/kubernetes default/web"},
		"its own kubernetes":                   {"own", nil, "own/kubernetes"},
		"its own kubernetes has no address":    {"own-headless", nil, "default/kubernetes"},
		"nothing of its own":                   {"empty", nil, "default/kubernetes"},
		"no namespace":                         {"", nil, "default/kubernetes"},
		"further ones, in their order":         {"empty", []string{"more", "shared"}, "default/kubernetes more/cache more/queue shared/db"},
		"its own wins":                         {"shop", []string{"shared", "more"}, "shop/db shop/web default/kubernetes shared/cache more/queue"},
		"the same again":                       {"shop", []string{"shop", "default"}, "shop/db shop/web default/kubernetes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 5 {
				shuffled := append([]*corev1.Service(nil), all...)
				rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				var got []string
				for _, s := range selected(tt.namespace, tt.further, held(shuffled...)) {
					got = append(got, s.Namespace+"/"+s.Name)
				}
				if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
					t.Fatalf("-want +got: %s", diff)
				}
			}
		})
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	path := servicesFile(t, list())
	for name, tt := range map[string]struct {
		handler, annotation string
		file                string
		want                bool
		err                 string
	}{
		"enabled":                        {"on", "", path, true, ""},
		"not enabled":                    {"plain", "", path, false, ""},
		"unknown handler":                {"", "", path, false, ""},
		"the pod wants it":               {"plain", "enabled", path, true, ""},
		"the pod does not want it":       {"on", "disabled", path, false, ""},
		"not wanted, no source":          {"plain", "disabled", "", false, ""},
		"malformed":                      {"on", "true", path, false, `annotation cri-proxy.io/service-env of the pod: it is "true", it must be "enabled" or "disabled"`},
		"malformed where it is disabled": {"plain", "Enabled", "", false, `it is "Enabled"`},
		"no source":                      {"plain", "enabled", "", false, "service_env.services_file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{File: tt.file})
			p := Pod{Handler: tt.handler, Namespace: "shop"}
			if tt.annotation != "" {
				p.Annotations = map[string]string{Annotation: tt.annotation}
			}
			got, err := r.Wanted(p)
			if got != tt.want || (err != nil) != (tt.err != "") {
				t.Fatalf("got %v, %v", got, err)
			}
			if err != nil && (!errors.Is(err, ErrAnnotation) || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
	// An annotation that is there and empty is malformed too.
	if _, err := newRig(t, Options{}).Wanted(Pod{Annotations: map[string]string{Annotation: ""}}); !errors.Is(err, ErrAnnotation) {
		t.Errorf("an empty annotation: %v", err)
	}
}

// TestMissing: what is set stays out, and each name comes once.
func TestMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{File: servicesFile(t, list(
		service("shop", "foo", "10.1.0.1", 80), service("shop", "foo-service", "10.1.0.2", 81), service("shared", "foo", "10.3.0.1", 82),
	))})
	set := map[string]bool{"FOO_PORT": true, "FOO_SERVICE_SERVICE_HOST": true, "foo_service_port": true}
	got, err := r.Missing(Pod{Handler: "wide", Namespace: "shop"}, set)
	want := []Variable{
		{"FOO_SERVICE_HOST", "10.1.0.1"},
		{"FOO_SERVICE_PORT", "80"}, // And not tcp://10.1.0.2:81, which foo-service has for it.
		{"FOO_PORT_80_TCP", "tcp://10.1.0.1:80"},
		{"FOO_PORT_80_TCP_PROTO", "tcp"},
		{"FOO_PORT_80_TCP_PORT", "80"},
		{"FOO_PORT_80_TCP_ADDR", "10.1.0.1"},
		{"FOO_SERVICE_SERVICE_PORT", "81"},
		{"FOO_SERVICE_PORT_81_TCP", "tcp://10.1.0.2:81"},
		{"FOO_SERVICE_PORT_81_TCP_PROTO", "tcp"},
		{"FOO_SERVICE_PORT_81_TCP_PORT", "81"},
		{"FOO_SERVICE_PORT_81_TCP_ADDR", "10.1.0.2"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if again, err := r.Missing(Pod{Handler: "wide", Namespace: "shop"}, set); err != nil || len(again) != 0 {
		t.Errorf("a second time: %v, %v", again, err)
	}
}

// TestTooLarge: the bound counts what is added, names and values.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	var services []*corev1.Service
	for i := range 400 {
		services = append(services, service("shop", fmt.Sprintf("s-%03d", i), "10.0.0.1", 80))
	}
	size := 0
	for _, v := range variablesOf(services[0]) {
		size += len(v.Name) + len(v.Value) + 2
	}
	fit := maxSize / size
	for n, large := range map[int]bool{fit: false, fit + 1: true} {
		r := newRig(t, Options{File: servicesFile(t, list(services[:n]...))})
		got, err := r.Missing(Pod{Handler: "on", Namespace: "shop"}, map[string]bool{})
		if large != errors.Is(err, ErrTooLarge) || large != (len(got) == 0) {
			t.Errorf("%d Services, %d bytes: %d variables, %v", n, n*size, len(got), err)
		}
		if large && !strings.Contains(err.Error(), fmt.Sprintf("%d bytes, at most 65536", n*size)) {
			t.Errorf("the error does not say how large it is: %v", err)
		}
	}
}

// TestUnavailable: before the first sync a container is refused or starts
// without, and one of a static pod is never refused.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler, from string
		refused       bool
	}{
		"fail":            {"on", "api", true},
		"fail, crictl":    {"on", "", true},
		"skip":            {"skip", "api", false},
		"a static pod":    {"on", "file", false},
		"by annotation":   {"plain", "api", true},
		"unknown handler": {"", "api", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{File: t.TempDir() + "/not-there.yaml"})
			p := Pod{Handler: tt.handler, Namespace: "shop", Annotations: map[string]string{}}
			if tt.from != "" {
				p.Annotations[sourceAnnotation] = tt.from
			}
			before := r.warnings()
			got, err := r.Missing(p, map[string]bool{})
			if tt.refused != errors.Is(err, ErrUnavailable) || len(got) != 0 {
				t.Errorf("got %v, %v", got, err)
			}
			if tt.refused && !strings.Contains(err.Error(), "not-there.yaml") {
				t.Errorf("%v does not say why", err)
			}
			if !tt.refused && r.warnings() != before+2 {
				t.Errorf("%d warnings: one of the file and one of the container are due", r.warnings()-before)
			}
		})
	}
}
