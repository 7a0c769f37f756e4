package real_test

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// journey is one pod with two containers on its way through its life.
type journey struct {
	target
	crictl rig.Crictl
	image  string
	pushed rig.Pushed
	pod    *runtimeapi.PodSandboxConfig
	podID  string
	server string // id of the container that serves HTTP
	reader string // id of the container that echoes its standard input
}

// step is one part of a journey; the later ones need the earlier.
type step struct {
	name string
	do   func(ctx context.Context, t *testing.T)
}

func testJourney(ctx context.Context, t *testing.T, n *node, target target) {
	t.Helper()
	j := newJourney(ctx, t, n, target)
	for _, step := range j.steps() {
		if !t.Run(step.name, func(t *testing.T) { step.do(ctx, t) }) {
			t.FailNow()
		}
	}
}

func newJourney(ctx context.Context, t *testing.T, n *node, target target) *journey {
	t.Helper()
	j := &journey{target: target, crictl: crictl(t, n, target.endpoint), image: imageName(t)}
	var err error
	if j.pushed, err = n.Push(ctx, j.image, rig.Image{}); err != nil {
		t.Fatal(err)
	}
	if j.pod, err = n.Pod("journey-" + target.name); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *journey) steps() []step {
	return []step{
		{"version", j.testVersion},
		{"pull", j.testPull},
		{"runp", j.testRunPod},
		{"create", j.testCreate},
		{"start", j.testStart},
		{"inspect", j.testInspect},
		{"list", j.testList},
		{"exec-sync", j.testExecSync},
		{"exec", j.testExec},
		{"exec-tty", j.testExecTTY},
		{"attach", j.testAttach},
		{"port-forward", j.testPortForward},
		{"logs", j.testLogs},
		{"stats", j.testStats},
		{"update", j.testUpdate},
		{"stop", j.testStop},
		{"rm", j.testRemove},
		{"stopp", j.testStopPod},
		{"rmp", j.testRemovePod},
		{"rmi", j.testRemoveImage},
	}
}

func (j *journey) testVersion(ctx context.Context, t *testing.T) {
	t.Helper()
	wantContains(t, run(ctx, t, j.crictl, "version"), "RuntimeName:  containerd", "RuntimeApiVersion:  v1")
	var info struct {
		RuntimeHandlers []struct{ Name string }
	}
	runJSON(ctx, t, j.crictl, &info, "info")
	var names []string
	for _, handler := range info.RuntimeHandlers {
		names = append(names, handler.Name)
	}
	if !slices.Contains(names, j.handler) || !slices.Contains(names, "") {
		t.Errorf("info reports the handlers %q, want %q and \"\" among them", names, j.handler)
	}
	wantContains(t, run(ctx, t, j.crictl, "runtime-config"), "CGROUPFS")
	wantContains(t, run(ctx, t, j.crictl, "imagefsinfo"), "mountpoint")
}

func (j *journey) testPull(ctx context.Context, t *testing.T) {
	t.Helper()
	wantContains(t, run(ctx, t, j.crictl, "pull", j.image), j.pushed.ID)
	byDigest := strings.TrimSuffix(j.image, ":v1") + "@" + j.pushed.Digest
	wantContains(t, run(ctx, t, j.crictl, "pull", byDigest), j.pushed.ID)
	wantContains(t, run(ctx, t, j.crictl, "images", "-q", "--no-trunc"), j.pushed.ID)
	wantContains(t, run(ctx, t, j.crictl, "inspecti", j.pushed.ID), j.image, j.pushed.Digest)
}

func (j *journey) testRunPod(ctx context.Context, t *testing.T) {
	t.Helper()
	id, err := j.crictl.RunPod(ctx, j.handler, j.pod)
	if err != nil {
		t.Fatal(err)
	}
	j.podID = id
	other := proto.CloneOf(j.pod)
	other.Metadata.Uid += "-nowhere"
	if _, err = j.crictl.RunPod(ctx, "nowhere", other); err == nil || !strings.Contains(err.Error(), "configured") {
		t.Errorf("a pod under an unknown handler: got %v, want that it is not configured", err)
	}
}

func (j *journey) testCreate(ctx context.Context, t *testing.T) {
	t.Helper()
	reader := rig.Container(j.pod, "reader", j.image, "/bin/cat")
	reader.Stdin = true
	for container, id := range map[*runtimeapi.ContainerConfig]*string{
		rig.Container(j.pod, "server", j.image): &j.server,
		reader:                                  &j.reader,
	} {
		created, err := j.crictl.Create(ctx, j.podID, j.pod, container)
		if err != nil {
			t.Fatal(err)
		}
		*id = created
	}
	if state := inspect(ctx, t, j.crictl, j.server).State; state != "CONTAINER_CREATED" {
		t.Errorf("a created container is %s", state)
	}
}

func (j *journey) testStart(ctx context.Context, t *testing.T) {
	t.Helper()
	wantLines(t, run(ctx, t, j.crictl, "start", j.server), j.server)
	wantLines(t, run(ctx, t, j.crictl, "start", j.reader), j.reader)
	if state := inspect(ctx, t, j.crictl, j.server).State; state != "CONTAINER_RUNNING" {
		t.Errorf("a started container is %s", state)
	}
	waitFor(ctx, t, func() error { return contains(run(ctx, t, j.crictl, "logs", j.server), "listening on 8080") })
}

func (j *journey) testInspect(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range []string{j.server, short(j.server)} {
		if got := inspect(ctx, t, j.crictl, id); got.ID != j.server || got.ImageID != j.pushed.ID || got.Image.Image != j.image {
			t.Errorf("inspect %s: got %+v", id, got)
		}
	}
	for _, id := range []string{j.podID, short(j.podID)} {
		if got := inspectPod(ctx, t, j.crictl, id); got.ID != j.podID || got.RuntimeHandler != j.handler || got.Network.IP == "" {
			t.Errorf("inspectp %s: got %+v, want handler %q and an address", id, got, j.handler)
		}
	}
}

func (j *journey) testList(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range []string{j.podID, short(j.podID)} {
		wantLines(t, run(ctx, t, j.crictl, "pods", "-q", "--no-trunc", "--id", id), j.podID)
		wantLines(t, run(ctx, t, j.crictl, "ps", "-q", "--no-trunc", "--pod", id), j.server, j.reader)
	}
	wantLines(t, run(ctx, t, j.crictl, "ps", "-q", "--no-trunc", "--id", short(j.server)), j.server)
	uid := "io.kubernetes.pod.uid=" + j.pod.GetMetadata().GetUid()
	wantLines(t, run(ctx, t, j.crictl, "ps", "-q", "--no-trunc", "--label", uid), j.server, j.reader)
	wantContains(t, run(ctx, t, j.crictl, "pods", "--id", j.podID), j.handler, "Ready")
}

func (j *journey) testExecSync(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range []string{j.server, short(j.server)} {
		wantLines(t, run(ctx, t, j.crictl, "exec", "--sync", id, "/bin/echo", "in", "sync"), "in sync")
	}
	wantMark(t, run(ctx, t, j.crictl, "exec", "--sync", j.server, "/bin/env"), j.mark)
	_, err := j.crictl.Run(ctx, "exec", "--sync", j.server, "/bin/exit", "7")
	wantExitCode(t, err, 7)
}

func (j *journey) testExec(ctx context.Context, t *testing.T) {
	t.Helper()
	wantLines(t, run(ctx, t, j.crictl, "exec", short(j.server), "/bin/echo", "streamed"), "streamed")
	cmd := j.crictl.Command(ctx, "exec", "--interactive", j.server, "/bin/cat")
	var stdout bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader("up and down"), &stdout
	if err := cmd.Run(); err != nil || stdout.String() != "up and down" {
		t.Errorf("cat printed %q (%v), want what it was given", &stdout, err)
	}
	_, err := j.crictl.Run(ctx, "exec", j.server, "/bin/exit", "7")
	wantExitCode(t, err, 7)
}

func (j *journey) testStats(ctx context.Context, t *testing.T) {
	t.Helper()
	for command, id := range map[string]string{"stats": j.server, "statsp": j.podID} {
		waitFor(ctx, t, func() error { // containerd measures every ten seconds.
			output, err := j.crictl.Run(ctx, command, "-o", "json", "--id", id)
			return errorOr(err, contains(output, id, "workingSetBytes", "usageCoreNanoSeconds"))
		})
	}
}

func (j *journey) testUpdate(ctx context.Context, t *testing.T) {
	t.Helper()
	const limit = 128 << 20
	run(ctx, t, j.crictl, "update", "--memory", strconv.Itoa(limit), short(j.server))
	if got := inspect(ctx, t, j.crictl, j.server).Resources.Linux.MemoryLimitInBytes; got != strconv.Itoa(limit) {
		t.Errorf("the memory limit is %s, want %d", got, limit)
	}
}

func (j *journey) testStop(ctx context.Context, t *testing.T) {
	t.Helper()
	wantLines(t, run(ctx, t, j.crictl, "stop", "--timeout", "10", short(j.server)), short(j.server))
	got := inspect(ctx, t, j.crictl, j.server)
	if got.State != "CONTAINER_EXITED" || got.ExitCode != 0 {
		t.Errorf("the stopped container is %s with code %d", got.State, got.ExitCode)
	}
	wantContains(t, run(ctx, t, j.crictl, "logs", j.server), "terminated")
}

func (j *journey) testRemove(ctx context.Context, t *testing.T) {
	t.Helper()
	run(ctx, t, j.crictl, "rm", short(j.server))
	wantLines(t, run(ctx, t, j.crictl, "ps", "--all", "-q", "--no-trunc", "--pod", j.podID), j.reader)
	_, err := j.crictl.Run(ctx, "inspect", j.server)
	wantCode(t, err, "NotFound")
}

// testStopPod stops the pod while one of its containers runs.
func (j *journey) testStopPod(ctx context.Context, t *testing.T) {
	t.Helper()
	run(ctx, t, j.crictl, "stopp", short(j.podID))
	if state := inspect(ctx, t, j.crictl, j.reader).State; state != "CONTAINER_EXITED" {
		t.Errorf("a container of a stopped pod is %s", state)
	}
	if state := inspectPod(ctx, t, j.crictl, j.podID).State; state != "SANDBOX_NOTREADY" {
		t.Errorf("the stopped pod is %s", state)
	}
}

func (j *journey) testRemovePod(ctx context.Context, t *testing.T) {
	t.Helper()
	run(ctx, t, j.crictl, "rmp", short(j.podID))
	wantLines(t, run(ctx, t, j.crictl, "pods", "-q", "--no-trunc", "--id", j.podID))
	_, err := j.crictl.Run(ctx, "inspectp", j.podID)
	wantCode(t, err, "NotFound")
}

func (j *journey) testRemoveImage(ctx context.Context, t *testing.T) {
	t.Helper()
	wantContains(t, run(ctx, t, j.crictl, "rmi", j.image), j.image)
	if listed := run(ctx, t, j.crictl, "images", "-q", "--no-trunc"); contains(listed, j.pushed.ID) == nil {
		t.Errorf("%s is still among\n%s", j.pushed.ID, listed)
	}
}
