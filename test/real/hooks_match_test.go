package real_test

import (
	"context"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// matchedHooks are for containers of one name, namespace and label.
const matchedHooks = `[handlers.matched.hooks]
allow_opt_out = true
[[handlers.matched.hooks.post_start]]
name = "register"
exec = { command = ["/bin/append", "/hooks/log", "registered"] }
match = { containers = ["app"], namespaces = ["shop"], labels = { tier = "front" } }
[[handlers.matched.hooks.pre_stop]]
name = "drain"
exec = { command = ["/bin/append", "/hooks/log", "drained"] }
match = { containers = ["app"], namespaces = ["shop"], labels = { tier = "front" } }
`

// refusingHooks are without the keys that let pods have a say.
const refusingHooks = `[[handlers.refusing.hooks.pre_stop]]
name = "drain"
exec = { command = ["/bin/append", "/hooks/log", "drained"] }
`

const (
	hooksAnnotation  = "cri-proxy.io/hooks"
	optOutAnnotation = "cri-proxy.io/hooks-disabled"
)

// testHookMatch: which containers get the node's hooks, and which pods may bring
// or refuse some.
func testHookMatch(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	h.serve(ctx, t, "match", "", map[string]string{"matched": matchedHooks, "refusing": refusingHooks})
	for _, c := range []struct {
		name                        string
		container, namespace, label string
		optOut                      string
		hooked                      bool
	}{
		{name: "all", container: "app", namespace: "shop", label: "front", hooked: true},
		{name: "container", container: "other", namespace: "shop", label: "front"},
		{name: "namespace", container: "app", namespace: "default", label: "front"},
		{name: "label", container: "app", namespace: "shop", label: "back"},
		{name: "opt-out", container: "app", namespace: "shop", label: "front", optOut: "true"},
		{name: "opt-in", container: "app", namespace: "shop", label: "front", optOut: "false", hooked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := h.runPod(ctx, t, "matched", c.name, func(pod *runtimeapi.PodSandboxConfig) {
				pod.Metadata.Namespace, pod.Labels["tier"] = c.namespace, c.label
				if c.optOut != "" {
					pod.Annotations[optOutAnnotation] = c.optOut
				}
			})
			pod.wantHooks(ctx, t, c.container, c.hooked)
			pod.remove(ctx, t)
		})
	}
	for _, annotation := range []map[string]string{{optOutAnnotation: "true"}, {hooksAnnotation: "{}"}} {
		for key, value := range annotation {
			t.Run("refused/"+key[len("cri-proxy.io/"):], func(t *testing.T) {
				t.Parallel()
				h.testRefused(ctx, t, key, value)
			})
		}
	}
}

// wantHooks starts and stops a container, and tells by its folder whether it had hooks.
func (p *hookPod) wantHooks(ctx context.Context, t *testing.T, container string, wanted bool) {
	t.Helper()
	id, err := p.start(ctx, container, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(ctx, id, 30); err != nil {
		t.Error(err)
	}
	records, err := p.listed(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	ran := p.written(container) == "registered\ndrained\n"
	if ran != wanted || wanted != (len(records) == 2) || !wanted && len(records) > 0 {
		t.Errorf("hooks ran: %t, with the records %+v; want %t", ran, records, wanted)
	}
}

// testRefused: an annotation that the handler does not honour is an error, not
// something to overlook.
func (h *hooked) testRefused(ctx context.Context, t *testing.T, key, value string) {
	t.Helper()
	pod := h.runPod(ctx, t, "refusing", "refused", func(pod *runtimeapi.PodSandboxConfig) { pod.Annotations[key] = value })
	config, err := pod.container("app")
	if err != nil {
		t.Fatal(err)
	}
	_, err = pod.create(ctx, config)
	wantCode(t, err, "InvalidArgument")
	if err != nil {
		wantContains(t, err.Error(), key, `"refusing"`)
	}
	pod.remove(ctx, t)
}
