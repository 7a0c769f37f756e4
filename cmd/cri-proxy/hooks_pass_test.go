package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// TestHandlerWithoutHooks: beside a handler with hooks, the calls of another one
// arrive byte for byte, nothing is asked for them and nothing is written to disk.
func TestHandlerWithoutHooks(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, "[handlers.runc.hooks]\npod_pre_stop = \"ensure\"\n"+hook("post_start", command("register"))+hook("pre_stop", command("drain")))
	before := p.commits()
	sandbox, container := p.container("plain")
	for _, c := range []struct {
		method  string
		request proto.Message
	}{
		{"StartContainer", &runtimeapi.StartContainerRequest{ContainerId: container}},
		{"ExecSync", &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"x"}}},
		{"StopContainer", &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: 3}},
		{"RemoveContainer", &runtimeapi.RemoveContainerRequest{ContainerId: container}},
		{"StopPodSandbox", &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}},
		{"RemovePodSandbox", &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}},
	} {
		sent, err := proto.Marshal(c.request)
		if err != nil {
			t.Fatal(err)
		}
		sent = protowire.AppendString(protowire.AppendTag(sent, 50001, protowire.BytesType), "from next year")
		alpha.ClearJournal()
		answer := &rawcri.Frame{}
		if err := p.conn.Invoke(t.Context(), "/"+rawcri.RuntimeService+"/"+c.method, rawcri.NewFrame(sent), answer); err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
		answer.Free()
		if calls := alpha.Journal(); len(calls) != 1 || calls[0].Short() != c.method || !bytes.Equal(calls[0].Raw, sent) {
			t.Errorf("of %s %d calls arrived: %v", c.method, len(calls), calls)
		}
	}
	if after := p.commits(); after != before {
		t.Errorf("%d commits for a handler without hooks", after-before)
	}
}

// podHooks creates a container of a pod with annotations.
func (p *proxy) podHooks(handler string, annotations map[string]string) (string, error) {
	p.t.Helper()
	request := createRequest(p.run(handler, handler), handler, "c", "app")
	maps.Copy(request.GetSandboxConfig().GetAnnotations(), annotations)
	created, err := p.runtime.CreateContainer(p.t.Context(), request)
	return created.GetContainerId(), err
}

// TestPodHooks: a pod's own hooks, and its refusal of the node's, where the
// handler allows them.
func TestPodHooks(t *testing.T) {
	t.Parallel()
	const annotation = `{"c":{"postStart":[{"exec":{"command":["hello"]}}],"preStop":[{"exec":{"command":["bye"]}}]}}`
	p, alpha := hooked(t, "[handlers.runc.hooks]\nallow_pod_hooks = true\nallow_opt_out = true\n"+hook("pre_stop", command("drain")))
	container, err := p.podHooks("runc", map[string]string{"cri-proxy.io/hooks": annotation, "cri-proxy.io/hooks-disabled": "true"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.startContainer(container); err != nil {
		t.Error(err)
	}
	if err := p.stopContainer(container, 30); err != nil {
		t.Error(err)
	}
	var ran []string
	for _, c := range alpha.Calls("ExecSync") {
		if request, ok := c.Request.(*runtimeapi.ExecSyncRequest); ok {
			ran = append(ran, request.GetCmd()...)
		}
	}
	if got := strings.Join(ran, " "); got != "hello bye" {
		t.Errorf("ran %q, want the pod's hooks and not the node's", got)
	}
	if d := p.delivery(journal.PostStart, journal.Delivered); d.Source != journal.FromPod {
		t.Errorf("recorded: %+v", d)
	}
}

// TestPodHooksRefused: an annotation that is not allowed, or makes no sense,
// refuses the container, and the runtime is not asked.
func TestPodHooksRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler string
		key     string
		value   string
		want    []string
	}{
		"not allowed":            {"plain", "cri-proxy.io/hooks", `{}`, []string{"cri-proxy.io/hooks", `handler "plain"`, "allow_pod_hooks"}},
		"opting out not allowed": {"plain", "cri-proxy.io/hooks-disabled", "true", []string{"cri-proxy.io/hooks-disabled", `handler "plain"`, "allow_opt_out"}},
		"malformed":              {"runc", "cri-proxy.io/hooks", `{"c":`, []string{"cri-proxy.io/hooks", `container "c"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, "hooks.allow_pod_hooks = true\n")
			_, err := p.podHooks(tt.handler, map[string]string{tt.key: tt.value})
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v, want InvalidArgument", err)
			}
			for _, text := range tt.want {
				if !strings.Contains(messageOf(err), text) {
					t.Errorf("%v does not name %s", err, text)
				}
			}
			if n := len(alpha.Calls("CreateContainer")); n != 0 {
				t.Errorf("%d creates went out", n)
			}
		})
	}
}
