package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// preStopOf is an annotation with one PreStop handler of the container "app".
func preStopOf(handler string) string { return `{"app": {"preStop": [` + handler + `]}}` }

func TestPodHookForms(t *testing.T) {
	t.Parallel()
	allowed := configs.Hooks{AllowPodHooks: true}
	base := journal.Hook{Name: "0", Source: journal.FromPod, Attempts: 1, Backoff: 200 * time.Millisecond}
	get := func(g journal.HTTPGet) journal.Hook {
		h := base
		h.HTTPGet = &g
		return h
	}
	run, wait := base, base
	run.Exec, wait.Sleep = []string{"/bin/a", "", "$(B)"}, 5*time.Second
	for _, tt := range []struct {
		name, handler string
		want          journal.Hook
	}{
		{"exec", `{"exec": {"command": ["/bin/a", "", "$(B)"]}}`, run},
		{"sleep", `{"sleep": {"seconds": 5}}`, wait},
		{"http", `{"httpGet": {"path": "/a?b=c", "port": 80}}`, get(journal.HTTPGet{Scheme: "http", Port: 80, Path: "/a?b=c"})},
		{
			"https", `{"httpGet": {"path": "/a", "port": 65535, "scheme": "HTTPS", "httpHeaders": [{"name": "X-A", "value": "1"}, {"name": "X-A", "value": ""}]}}`,
			get(journal.HTTPGet{Scheme: "https", Port: 65535, Path: "/a", Headers: []journal.Header{{Name: "X-A", Value: "1"}, {Name: "X-A"}}}),
		},
		{"named port", `{"httpGet": {"path": "/a", "port": "web", "scheme": "HTTP", "host": ""}}`, get(journal.HTTPGet{Scheme: "http", Port: 8080, Path: "/a"})},
		{"port as a string", `{"httpGet": {"path": "/a", "port": "81"}}`, get(journal.HTTPGet{Scheme: "http", Port: 81, Path: "/a"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := `{"app": {"preStop": [` + tt.handler + `], "postStart": [` + tt.handler + `]}}`
			target := aTarget(map[string]string{Annotation: text})
			preStops, err := ownHooks(allowed, target, journal.PreStop)
			if diff := cmp.Diff([]journal.Hook{tt.want}, preStops); diff != "" || err != nil {
				t.Error(diff, err)
			}
			want := tt.want
			want.Wait, want.Kill = true, true
			if want.Sleep == 0 {
				want.Timeout = podTimeout
			}
			postStarts, err := ownHooks(allowed, target, journal.PostStart)
			if diff := cmp.Diff([]journal.Hook{want}, postStarts); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
}

// request is a CreateContainer of the container "app".
func request(annotations map[string]string) *runtimeapi.CreateContainerRequest {
	target := aTarget(annotations)
	return &runtimeapi.CreateContainerRequest{
		Config:        &runtimeapi.ContainerConfig{Metadata: target.status.GetMetadata(), Annotations: target.status.GetAnnotations()},
		SandboxConfig: &runtimeapi.PodSandboxConfig{Metadata: target.pod.GetMetadata(), Annotations: annotations},
	}
}

// wantCheck fails unless Check of a pod's annotation says want, by its name and its container's; "" wants nothing.
func wantCheck(t *testing.T, h configs.Hooks, annotation, value, want string) {
	t.Helper()
	e, _ := newCourier(t, 0)
	e.Configure(map[string]configs.Handler{handlerName: {Hooks: h}})
	err := e.Check(handlerName, request(map[string]string{annotation: value}))
	wantError(t, err, want)
	if want == "" {
		return
	}
	if text := status.Convert(err).Message(); status.Code(err) != codes.InvalidArgument || !strings.Contains(text, annotation) || !strings.Contains(text, `"app"`) {
		t.Errorf("it says %v", err)
	}
}

func TestCheckHooksAnnotation(t *testing.T) {
	t.Parallel()
	long := `{"sleep": {"seconds": 1}}` + strings.Repeat(`, {"sleep": {"seconds": 1}}`, maxPodHooks)
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", `{}`, ""},
		{"nothing for this container", `{"other": {"preStop": [{"sleep": {"seconds": 1}}]}}`, ""},
		{"no JSON", `{"app": `, "unexpected end"},
		{"more behind it", `{} {}`, "after top-level value"},
		{"YAML", "app:\n  preStop: []", "invalid character"},
		{"an array", `[]`, "array"},
		{"an unknown event", `{"app": {"preStart": []}}`, `unknown field "app.preStart"`},
		{"another case", `{"app": {"PreStop": []}}`, `unknown field "app.PreStop"`},
		{"a container twice", `{"app": {}, "app": {}}`, `duplicate field "app"`},
		{"an event twice", `{"app": {"preStop": [], "preStop": []}}`, `duplicate field "app.preStop"`},
		{"a handler and no list of them", `{"app": {"preStop": {"sleep": {"seconds": 1}}}}`, "object"},
		{"not a container's name", `{"App": {}}`, `"App"`},
		{"an empty name", `{"": {}}`, `""`},
		{"too long a name", `{"` + strings.Repeat("a", 64) + `": {}}`, "63"},
		{"too many", preStopOf(long), "at most"},
		{"no action", preStopOf(`{}`), "exactly one"},
		{"null", preStopOf(`null`), "exactly one"},
		{"two actions", preStopOf(`{"exec": {"command": ["a"]}, "sleep": {"seconds": 1}}`), "exactly one"},
		{"an unknown action", preStopOf(`{"http": {}}`), `unknown field "app.preStop[0].http"`},
		{"tcpSocket", preStopOf(`{"tcpSocket": {"port": 80}}`), "tcpSocket"},
		{"tcpSocket beside another", preStopOf(`{"tcpSocket": {"port": 80}, "sleep": {"seconds": 1}}`), "tcpSocket"},
		{"no command", preStopOf(`{"exec": {}}`), "exec.command"},
		{"an empty command", preStopOf(`{"exec": {"command": [""]}}`), "exec.command"},
		{"a command line", preStopOf(`{"exec": {"command": "/bin/a b"}}`), "string"},
		{"no seconds", preStopOf(`{"sleep": {}}`), "sleep.seconds"},
		{"negative seconds", preStopOf(`{"sleep": {"seconds": -1}}`), "sleep.seconds"},
		{"endless seconds", preStopOf(`{"sleep": {"seconds": 9223372036854775807}}`), "sleep.seconds"},
		{"half a second", preStopOf(`{"sleep": {"seconds": 0.5}}`), "0.5"},
		{"a host", preStopOf(`{"httpGet": {"port": 80, "host": "169.254.169.254"}}`), "httpGet.host"},
		{"no port", preStopOf(`{"httpGet": {"path": "/"}}`), "httpGet.port"},
		{"port 0", preStopOf(`{"httpGet": {"port": 0}}`), "httpGet.port"},
		{"port 65536", preStopOf(`{"httpGet": {"port": 65536}}`), "httpGet.port"},
		{"port 0 as a string", preStopOf(`{"httpGet": {"port": "0"}}`), "port"},
		{"a name of no port", preStopOf(`{"httpGet": {"port": "metrics"}}`), `"metrics"`},
		{"another container's port, whose names are not known yet", `{"other": {"preStop": [{"httpGet": {"port": "metrics"}}]}}`, ""},
		{"another container's bad port", `{"other": {"preStop": [{"httpGet": {"port": -1}}]}}`, `"other"`},
		{"another scheme", preStopOf(`{"httpGet": {"port": 80, "scheme": "FTP"}}`), "httpGet.scheme"},
		{"another protocol", preStopOf(`{"httpGet": {"port": 80, "protocol": "HTTP2"}}`), "protocol"},
		{"a control character", preStopOf(`{"httpGet": {"port": 80, "path": "/\u0000"}}`), "httpGet.path"},
		{"a header without a name", preStopOf(`{"httpGet": {"port": 80, "httpHeaders": [{"value": "hunter2"}]}}`), "httpHeaders"},
		{"a header's name", preStopOf(`{"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "hunter2"}]}}`), `"a b"`},
		{"a header's value", preStopOf(`{"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "hunter2\r\nb: c"}]}}`), `"a"`},
		{"one of our headers", preStopOf(`{"httpGet": {"port": 80, "httpHeaders": [{"name": "x-cri-PROXY-attempt", "value": "hunter2"}]}}`), "cri-proxy sets"},
		{"too long", preStopOf(`{"exec": {"command": ["` + strings.Repeat("a", 256<<10) + `"]}}`), "bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantCheck(t, configs.Hooks{AllowPodHooks: true}, Annotation, tt.text, tt.want)
			wantCheck(t, configs.Hooks{}, Annotation, tt.text, "allow_pod_hooks")
		})
	}
}

func TestCheckOptOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ value, allowed, notAllowed string }{
		{"true", "", "allow_opt_out"},
		{"false", "", ""}, // It asks for nothing that needs a permission.
		{"yes", `"yes"`, OptOutAnnotation},
		{"", `""`, OptOutAnnotation},
	} {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			wantCheck(t, configs.Hooks{AllowOptOut: true}, OptOutAnnotation, tt.value, tt.allowed)
			wantCheck(t, configs.Hooks{}, OptOutAnnotation, tt.value, tt.notAllowed)
		})
	}
}

// Whatever a pod writes is refused, or makes hooks that the journal can keep and deliver.
func FuzzPodHooks(f *testing.F) {
	f.Add(`{"app": {"postStart": [{"exec": {"command": ["/bin/a"]}}], "preStop": [{"sleep": {"seconds": 5}}]}}`)
	f.Add(preStopOf(`{"httpGet": {"path": "/a?b", "port": "web", "scheme": "HTTPS", "httpHeaders": [{"name": "X-A", "value": "b"}]}}`))
	f.Add(preStopOf(`{"tcpSocket": {"port": 80}}`))
	f.Add(preStopOf(`{"httpGet": {"host": "a", "port": 99999}}`))
	f.Add(`{"app": null, "": [1e99]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, event := range []journal.Event{journal.PostStart, journal.PreStop} {
			hooks, err := ownHooks(configs.Hooks{AllowPodHooks: true}, aTarget(map[string]string{Annotation: text}), event)
			if err != nil {
				if status.Code(err) != codes.InvalidArgument || hooks != nil {
					t.Errorf("%v with %v", err, hooks)
				}
				continue
			}
			for _, h := range hooks {
				checkDeliverable(t, h)
			}
		}
	})
}

func checkDeliverable(t *testing.T, h journal.Hook) {
	t.Helper()
	actions := 0
	for _, set := range []bool{len(h.Exec) > 0 && h.Exec[0] != "", h.HTTPGet != nil, h.Sleep > 0} {
		if set {
			actions++
		}
	}
	if actions != 1 || h.Attempts != 1 || h.Backoff <= 0 || h.Timeout < 0 || h.Source != journal.FromPod {
		t.Errorf("accepted %+v", h)
	}
	if h.HTTPGet == nil {
		return
	}
	if h.HTTPGet.Host != "" || h.HTTPGet.Port < 1 || h.HTTPGet.Port > 65535 {
		t.Errorf("accepted %+v", h.HTTPGet)
	}
	got, err := newRequest(t.Context(), "10.0.0.1", journal.Record{Hook: h})
	if err != nil || got.URL.Hostname() != "10.0.0.1" || got.URL.User != nil || got.Header.Get("X-Cri-Proxy-Attempt") != "0" {
		t.Errorf("%+v cannot be requested, or goes elsewhere: %v", h.HTTPGet, err)
	}
}
