package kind_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// tree is what belongs to a node but not to its pods: files by their path, and
// systemd's units by their name.
type tree map[string]string

// listTree prints a tree, line by line. Big files are known by their size and
// time. Left out is what other programs write while they run:
//   - /var/lib/kubelet but for configuration and certificates: pods, plugins, checkpoints;
//   - /var/lib/dpkg and /var/log, where dpkg keeps its books;
//   - /run/systemd/transient, units and the like: the pods' scopes, and an id for each start;
//   - /var/lib/cri-proxy, which stays until the package is purged.
const listTree = `
for path in /etc /usr /opt /run/cri-proxy /var/lib/kubelet/pki /run/systemd/system /run/systemd/generator*; do
	[ ! -e "$path" ] || echo "$path"
done >/tmp/paths
{ xargs -a /tmp/paths -I PATH find PATH -print0; find /var/lib/kubelet -maxdepth 1 \( -name '*.yaml' -o -name '*.env' \) -print0; } >/tmp/files
rm /tmp/paths
find -files0-from /tmp/files -maxdepth 0 -printf '%p\t%M %U:%G %l\n'
find -files0-from /tmp/files -maxdepth 0 -type f -size -1024k -exec sha256sum {} + | awk '{ print $2 " (content)\t" $1 }'
find -files0-from /tmp/files -maxdepth 0 -type f -size +1023k -printf '%p (content)\t%s %t\n'
rm /tmp/files
systemctl list-unit-files --no-legend --no-pager --type service,socket,target,path,timer | awk '{ print $1 " (unit file)\t" $2 }'
systemctl list-units --state active,activating,deactivating,failed --no-legend --no-pager --plain --type service,socket,target,path,timer | awk '{ print $1 " (unit)\t" $2 " " $3 " " $4 }'
`

func (j *journey) tree(ctx context.Context, t *testing.T) tree {
	t.Helper()
	found := tree{}
	for line := range strings.Lines(j.shell(ctx, t, listTree)) {
		name, what, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Fatalf("the node's tree has the line %q", line)
		}
		found[name] = what
	}
	for _, name := range []string{"/var/lib/kubelet/config.yaml", "/var/lib/kubelet/instance-config.yaml (content)", "/usr/bin/kubelet (content)", "kubelet.service (unit)"} {
		if found[name] == "" {
			t.Fatalf("the node's tree has no %s among %d entries", name, len(found))
		}
	}
	return found
}

// wantTree: the node is as it was, except for these.
func (j *journey) wantTree(ctx context.Context, t *testing.T, want tree, except ...string) {
	t.Helper()
	now := j.tree(ctx, t)
	want = maps.Clone(want)
	for _, name := range except {
		delete(want, name)
		delete(now, name)
	}
	if diff := cmp.Diff(want, now); diff != "" {
		t.Errorf("the node is not as it was (-before +now):\n%s", diff)
	}
}

// life is what a pod's container keeps as long as it is not started again.
type life struct {
	ID      string
	Started time.Time
	Pod     time.Time
}

// startPod makes a pod and waits until it can be used. It has to live on.
func (j *journey) startPod(ctx context.Context, t *testing.T, name, class string) {
	t.Helper()
	j.apply(ctx, t, `{apiVersion: v1, kind: Pod, metadata: {name: {{.Name}}}, spec: { {{if .Class}}runtimeClassName: {{.Class}},{{end}}
	  terminationGracePeriodSeconds: 1, containers: [{name: app, image: "`+appImage+`", imagePullPolicy: Never}]}}`,
		map[string]string{"Name": name, "Class": class})
	j.ready(ctx, t, "pod/"+name)
	var object corev1.Pod
	if err := j.get(ctx, &object, "pod", name); err != nil {
		t.Fatal(err)
	}
	life, err := lifeOf(&object)
	if err != nil {
		t.Fatal(err)
	}
	j.pods[name] = life
}

// lifeOf is an error where the container was started again, or is not ready.
func lifeOf(object *corev1.Pod) (life, error) {
	if len(object.Status.ContainerStatuses) != 1 {
		return life{}, fmt.Errorf("pod %s has the containers %+v", object.Name, object.Status.ContainerStatuses)
	}
	status := object.Status.ContainerStatuses[0]
	if status.State.Running == nil || status.RestartCount != 0 || !status.Ready {
		return life{}, fmt.Errorf("pod %s was started again, or does not run: %+v", object.Name, status)
	}
	return life{status.ContainerID, status.State.Running.StartedAt.Time, object.Status.StartTime.Time}, nil
}

// lives: the node is ready, every pod lives on as it was started, the first one can
// be used, and so can a new one, which is called like what happened before.
func (j *journey) lives(ctx context.Context, t *testing.T, after string) {
	t.Helper()
	wait(ctx, t, func() error { return j.isReady(ctx, j.Control()) })
	j.startPod(ctx, t, after, "")
	var list corev1.PodList
	if err := j.get(ctx, &list, "pods"); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != len(j.pods) {
		t.Errorf("after %s there are %d pods, want %d", after, len(list.Items), len(j.pods))
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if now, err := lifeOf(pod); err != nil || now != j.pods[pod.Name] {
			t.Errorf("after %s, pod %s is %+v (%v), and was %+v", after, pod.Name, now, err, j.pods[pod.Name])
		}
	}
	for _, pod := range []string{"before", after} {
		if got := strings.TrimSpace(j.kubectl(ctx, t, "exec", pod, "--", "/bin/hostname")); got != pod {
			t.Errorf("after %s, the hostname in pod %s is %q", after, pod, got)
		}
		wantContains(t, j.kubectl(ctx, t, "logs", pod), "listening on 8080")
	}
}

// endPod removes a pod that lived on.
func (j *journey) endPod(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	j.kubectl(ctx, t, "delete", "pod", name)
	delete(j.pods, name)
}

// onProxy: the kubelet's connection is with the proxy, or it is not.
func (j *journey) onProxy(ctx context.Context, t *testing.T, want bool) {
	t.Helper()
	endpoint := "unix:///run/containerd/containerd.sock"
	if want {
		endpoint = "unix:///run/cri-proxy/cri-proxy.sock"
	}
	for _, file := range []string{"config.yaml", "instance-config.yaml"} {
		content := j.on(ctx, t, j.Control(), "cat", "/var/lib/kubelet/"+file)
		wantContains(t, strings.ReplaceAll(content, `"`, ""), "containerRuntimeEndpoint: "+endpoint+"\n")
	}
	if active := j.state(ctx, "cri-proxy.service") == "active"; active != want {
		t.Errorf("cri-proxy.service is active: %t, want %t", active, want)
	}
}

// state is a unit's, such as active.
func (j *journey) state(ctx context.Context, unit string) string {
	text, err := j.On(ctx, j.Control(), "systemctl", "is-active", unit)
	if err != nil && exitCode(err) < 0 {
		return err.Error()
	}
	return strings.TrimSpace(text)
}

// exitCode is that of a command in a node; -1 is none.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
