package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
)

// TestAnnotatedThenRestarted: what a pod's annotations say when a container is
// created counts when it is started and stopped, though the proxy ended between,
// and though the pod had others when its sandbox was made. Nothing is written
// where the runtime has them, too.
func TestAnnotatedThenRestarted(t *testing.T) {
	t.Parallel()
	own := map[string]string{hooks.Annotation: `{"c": {"postStart": [{"exec": {"command": ["own up"]}}], "preStop": [{"exec": {"command": ["own down"]}}]}}`}
	others := map[string]string{hooks.Annotation: `{"c": {"preStop": [{"exec": {"command": ["old down"]}}]}}`}
	optOut := map[string]string{hooks.OptOutAnnotation: "true"}
	for name, tt := range map[string]struct {
		sandbox, container map[string]string
		commits            int
		want               string // The commands that ran.
	}{
		"none at all":                   {nil, nil, 0, "up, down"},
		"those of the sandbox":          {own, own, 0, "up, own up, down, own down"},
		"later than the sandbox":        {nil, own, 1, "up, own up, down, own down"},
		"others than the sandbox":       {others, own, 1, "up, own up, down, own down"},
		"opt-out later":                 {nil, optOut, 1, ""},
		"opt-out of the sandbox":        {optOut, optOut, 0, ""},
		"hooks instead of an opt-out":   {optOut, own, 1, "up, own up, down, own down"},
		"an opt-out instead of its own": {own, optOut, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, "hooks.allow_pod_hooks = true\nhooks.allow_opt_out = true\n"+hook("post_start", command("up"))+hook("pre_stop", command("down")))
			config := sandboxConfig("a")
			maps.Copy(config.GetAnnotations(), tt.sandbox)
			ran, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "runc"})
			if err != nil {
				t.Fatal(err)
			}
			request := createRequest(ran.GetPodSandboxId(), "a", "c", "app")
			maps.Copy(request.GetSandboxConfig().GetAnnotations(), tt.container)
			before := p.commits()
			created, err := p.runtime.CreateContainer(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if n := p.commits() - before; n != tt.commits {
				t.Errorf("the creation took %d commits, want %d", n, tt.commits)
			}
			p.restart()
			if err := p.startContainer(created.GetContainerId()); err != nil {
				t.Error(err)
			}
			p.restart()
			if err := p.stopContainer(created.GetContainerId(), 30); err != nil {
				t.Error(err)
			}
			if _, err := p.runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
				t.Error(err)
			}
			p.settled()
			var got []string
			for _, call := range alpha.Calls("ExecSync") {
				if q, ok := call.Request.(*runtimeapi.ExecSyncRequest); ok {
					got = append(got, q.GetCmd()...)
				}
			}
			if want := slices.DeleteFunc(strings.Split(tt.want, ", "), func(s string) bool { return s == "" }); !slices.Equal(got, want) {
				t.Errorf("these commands ran: %q, want %q", got, want)
			}
		})
	}
}
