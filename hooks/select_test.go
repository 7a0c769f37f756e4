package hooks

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// aTarget is the container "app" of the pod shop/front.
func aTarget(annotations map[string]string) *target {
	return &target{
		status: &runtimeapi.ContainerStatus{
			Metadata:    &runtimeapi.ContainerMetadata{Name: "app"},
			Annotations: map[string]string{portsAnnotation: `[{"name":"web","containerPort":8080,"protocol":"TCP"},{"containerPort":9}]`},
		},
		pod: &runtimeapi.PodSandboxStatus{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "front", Namespace: "shop", Uid: "uid"},
			Labels:   map[string]string{"tier": "front", "empty": ""},
		},
		annotations: annotations,
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		match configs.Match
		want  bool
	}{
		{"nothing asked", configs.Match{}, true},
		{"container", configs.Match{Containers: []string{"other", "app"}}, true},
		{"other container", configs.Match{Containers: []string{"other", "ap", "App"}}, false},
		{"namespace", configs.Match{Namespaces: []string{"shop"}}, true},
		{"other namespace", configs.Match{Namespaces: []string{"kube-system"}}, false},
		{"label", configs.Match{Labels: map[string]string{"tier": "front"}}, true},
		{"other value", configs.Match{Labels: map[string]string{"tier": "back"}}, false},
		{"one of two labels", configs.Match{Labels: map[string]string{"tier": "front", "zone": "a"}}, false},
		{"empty value", configs.Match{Labels: map[string]string{"empty": ""}}, true},
		{"empty value of no label", configs.Match{Labels: map[string]string{"zone": ""}}, false},
		{"all parts", configs.Match{Containers: []string{"app"}, Namespaces: []string{"shop"}, Labels: map[string]string{"tier": "front"}}, true},
		{"all parts but one", configs.Match{Containers: []string{"app"}, Namespaces: []string{"default"}, Labels: map[string]string{"tier": "front"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := matches(tt.match, aTarget(nil)); got != tt.want {
				t.Errorf("%+v gives %v", tt.match, got)
			}
		})
	}
}

// names are the events' hooks, in order.
func names(t *testing.T, h configs.Hooks, event journal.Event, target *target) []string {
	t.Helper()
	hooks := nodeHooks(h, target, event)
	own, err := ownHooks(h, target, event)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, hook := range append(hooks, own...) {
		all = append(all, string(hook.Source)+" "+hook.Name)
	}
	return all
}

func TestSelection(t *testing.T) {
	t.Parallel()
	elsewhere := exec("elsewhere", "/bin/c")
	elsewhere.Match.Namespaces = []string{"default"}
	both := configs.Hooks{
		AllowPodHooks: true, AllowOptOut: true,
		PostStart: []configs.PostStartHook{postStart(exec("z", "/bin/z"), true, "kill"), postStart(elsewhere, true, "kill"), postStart(exec("a", "/bin/a"), false, "ignore")},
		PreStop:   []configs.Hook{exec("drain", "/bin/drain"), elsewhere},
	}
	own := map[string]string{Annotation: `{"app": {"postStart": [{"exec": {"command": ["/bin/b"]}}, {"sleep": {"seconds": 1}}], "preStop": [{"sleep": {"seconds": 2}}]},
		"other": {"preStop": [{"sleep": {"seconds": 3}}]}}`}
	optOut := func(value string) map[string]string {
		return map[string]string{OptOutAnnotation: value, Annotation: own[Annotation]}
	}
	for _, tt := range []struct {
		name               string
		hooks              configs.Hooks
		annotations        map[string]string
		postStart, preStop []string
	}{
		{"none", configs.Hooks{}, nil, nil, nil},
		{"the node's", both, nil, []string{"node z", "node a"}, []string{"node drain"}},
		{"the node's, then the pod's", both, own, []string{"node z", "node a", "pod 0", "pod 1"}, []string{"node drain", "pod 0"}},
		{"opted out", both, optOut("true"), []string{"pod 0", "pod 1"}, []string{"pod 0"}},
		{"not opted out", both, optOut("false"), []string{"node z", "node a", "pod 0", "pod 1"}, []string{"node drain", "pod 0"}},
		{"nothing allowed any more", configs.Hooks{PostStart: both.PostStart, PreStop: both.PreStop}, optOut("true"), []string{"node z", "node a"}, []string{"node drain"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target := aTarget(tt.annotations)
			if diff := cmp.Diff(tt.postStart, names(t, tt.hooks, journal.PostStart, target)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.preStop, names(t, tt.hooks, journal.PreStop, target)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNodeHook(t *testing.T) {
	t.Parallel()
	get := configs.Hook{
		Name: "get", Timeout: configs.Duration{Duration: 7 * time.Second}, Attempts: 3, Backoff: configs.Duration{Duration: time.Second},
		HTTPGet: &configs.HTTPGetHook{Scheme: "https", Host: "h", Port: 1, Path: "/p?q", Headers: []configs.Header{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}},
	}
	sleep := get
	sleep.HTTPGet, sleep.Sleep = nil, &configs.SleepHook{Seconds: 5}
	h := configs.Hooks{
		PostStart: []configs.PostStartHook{postStart(get, true, configs.OnFailureKill), postStart(sleep, false, configs.OnFailureIgnore)},
		PreStop:   []configs.Hook{exec("run", "/bin/a b")},
	}
	common := journal.Hook{Name: "get", Source: journal.FromNode, Timeout: 7 * time.Second, Attempts: 3, Backoff: time.Second}
	wantGet, wantSleep := common, common
	wantGet.Wait, wantGet.Kill = true, true
	wantGet.HTTPGet = &journal.HTTPGet{Scheme: "https", Host: "h", Port: 1, Path: "/p?q", Headers: []journal.Header{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}}
	wantSleep.Sleep = 5 * time.Second
	if diff := cmp.Diff([]journal.Hook{wantGet, wantSleep}, nodeHooks(h, aTarget(nil), journal.PostStart)); diff != "" {
		t.Error(diff)
	}
	wantRun := []journal.Hook{{Name: "run", Source: journal.FromNode, Exec: []string{"/bin/a", "b"}, Timeout: time.Hour, Attempts: 1, Backoff: 100 * time.Millisecond}}
	if diff := cmp.Diff(wantRun, nodeHooks(h, aTarget(nil), journal.PreStop)); diff != "" {
		t.Error(diff)
	}
}
