package kind_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/kind/calls"
)

const criSocket = "/run/cri-proxy/cri-proxy.sock"

// testPackage: the package starts and enables nothing.
func testPackage(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.bring(ctx, t, j.releases[0], "cri-proxy_*.deb")
	j.do(ctx, t, "dpkg --install")
	wantContains(t, j.shell(ctx, t, "cri-proxy version"), "cri-proxy "+oldVersion+" ")
	for _, unit := range []string{"cri-proxy.service", "cri-proxy.socket"} {
		if text, err := j.On(ctx, j.Control(), "systemctl", "is-enabled", unit); exitCode(err) != 1 || text != "disabled\n" {
			t.Errorf("%s is %q (%v), want disabled", unit, text, err)
		}
	}
	j.onProxy(ctx, t, false)
	j.packaged = j.tree(ctx, t)
}

// testDryRun: what would be done is shown, and nothing is done.
func testDryRun(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	shown := j.do(ctx, t, "cri-proxy install --dry-run")
	for _, part := range []string{
		"\n+containerRuntimeEndpoint: unix:///run/cri-proxy/cri-proxy.sock", "+++ /etc/cri-proxy/config.toml\n",
		"run: systemctl restart kubelet.service\n",
	} {
		wantContains(t, strings.ReplaceAll("\n"+shown, `"`, ""), part)
	}
	j.wantTree(ctx, t, j.packaged)
}

// testInstall: the node is on the proxy, and nobody has waited for a call in vain
// since the socket is there.
func testInstall(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	caller, err := j.StartCaller(ctx, j.Control(), criSocket)
	if err != nil {
		t.Fatal(err)
	}
	j.caller = caller
	shown := j.do(ctx, t, "cri-proxy install\n")
	wantContains(t, shown, "the kubelet runs on cri-proxy")
	wantContains(t, shown, " 0 problems,")
	wantContains(t, shown, "VERSION  "+oldVersion+",")
	j.onProxy(ctx, t, true)
	j.lives(ctx, t, "install")
	wantContains(t, j.refused(ctx, t, "dpkg --remove cri-proxy"), `run "cri-proxy uninstall" first`)
	wantContains(t, j.refused(ctx, t, "cri-proxy install"), "it is installed already")
}

// testSecondRuntime adds one. There is no registry here to have its images from.
func testSecondRuntime(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.stage(t, "second runtime")
	j.do(ctx, t, "containerd-second.service")
	j.do(ctx, t, "[backends.second]")
	j.do(ctx, t, "kind: RuntimeClass")
	wait(ctx, t, func() error { _, err := j.reloaded(ctx); return err })
	sandbox := j.shell(ctx, t, `sed -n 's/.*sandbox_image = "\(.*\)".*/\1/p' /etc/containerd/config.toml`)
	for _, image := range []string{strings.TrimSpace(sandbox), appImage} {
		j.on(ctx, t, j.Control(), "cri-proxy", "images", "copy", "--from", runc, "--to", second, image)
	}
	j.startPod(ctx, t, "in-second", second)
	id := strings.TrimPrefix(j.pods["in-second"].ID, "containerd://")
	wantContains(t, j.shell(ctx, t, "ctr --address /run/containerd-second/containerd.sock --namespace k8s.io tasks list --quiet"), id)
	j.lives(ctx, t, "second-runtime")
	for _, command := range []string{"cri-proxy uninstall", "cri-proxy uninstall --dry-run"} {
		wantContains(t, j.refused(ctx, t, command), "backend second has 1 pods")
	}
}

// reloaded is how the last reload went, which is an error where there was none.
func (j *journey) reloaded(ctx context.Context) (reload, error) {
	text, err := j.On(ctx, j.Control(), "cri-proxy", "status", "-o", "json")
	if err != nil {
		return reload{}, err
	}
	var status struct {
		LastReload *reload `json:"lastReload"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return reload{}, err
	}
	if status.LastReload == nil {
		return reload{}, errors.New("there was no reload yet")
	}
	return *status.LastReload, nil
}

type reload struct {
	Time    time.Time `json:"time"`
	Success bool      `json:"success"`
	Error   string    `json:"error"`
}

// reloadedAfter waits for the one that comes after another.
func (j *journey) reloadedAfter(ctx context.Context, t *testing.T, before reload) (after reload) {
	t.Helper()
	wait(ctx, t, func() (err error) {
		after, err = j.reloaded(ctx)
		if err == nil && !after.Time.After(before.Time) {
			err = errors.New("there was no reload yet")
		}
		return err
	})
	return after
}

// testReload: a good configuration is taken over, and of a bad one nothing.
func testReload(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.stage(t, "reload")
	before, err := j.reloaded(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const file = "/etc/cri-proxy/config.toml"
	j.shell(ctx, t, `printf '[handlers.extra]\nbackend = "second"\nruntime = "runc"\n' >>`+file)
	j.do(ctx, t, "cri-proxy config validate ")
	good := j.reloadedAfter(ctx, t, before)
	if !good.Success {
		t.Errorf("a good configuration was refused: %+v", good)
	}
	wantContains(t, j.shell(ctx, t, "cri-proxy status"), "\nextra ")
	j.shell(ctx, t, "cp "+file+" /root/good.toml")
	for _, bad := range []struct{ line, why string }{
		{"[handlers.third]\nbackend = \"nowhere\"\n", "nowhere"},
		{"[backends.third]\nendpoint = \"unix:///run/third.sock\"\n[handlers.third]\nbackend = \"third\"\n", "/run/third.sock"},
		{"[server]\nlisten = \"unix:///run/cri-proxy/other.sock\"\n", "server.listen"},
	} {
		j.shell(ctx, t, "cat >>"+file+" <<'END'\n"+bad.line+"END\nsystemctl reload cri-proxy")
		refused := j.reloadedAfter(ctx, t, good)
		if refused.Success || !strings.Contains(refused.Error, bad.why) {
			t.Errorf("a configuration with %q: %+v", bad.line, refused)
		}
		// The log goes to systemd's journal by way of another process.
		wait(ctx, t, func() error { return j.logged(ctx, bad.why) })
		shown := j.shell(ctx, t, "cri-proxy status")
		for _, part := range []string{"\nRELOAD   refused ", bad.why, "\nextra "} {
			wantContains(t, shown, part)
		}
		if j.state(ctx, "cri-proxy.service") != "active" {
			t.Error("cri-proxy.service is not active after a reload that was refused")
		}
		j.shell(ctx, t, "cp /root/good.toml "+file)
		good = refused
	}
	j.again(ctx, t, "cri-proxy config validate ")
	if mended := j.reloadedAfter(ctx, t, good); !mended.Success {
		t.Errorf("the configuration is right again: %+v", mended)
	}
	j.lives(ctx, t, "reload")
}

// logged says why the unit's log, as systemctl shows it, has not why a reload was refused.
func (j *journey) logged(ctx context.Context, why string) error {
	text, err := j.Shell(ctx, j.Control(), "/root", "systemctl status --no-pager --full --lines 5 cri-proxy")
	if err == nil && (!strings.Contains(text, "was not reloaded") || !strings.Contains(text, why)) {
		err = errors.New("systemctl status does not show it:\n" + text)
	}
	return err
}

// testUpgrade: another version in the place of the running one.
func testUpgrade(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.stage(t, "upgrade")
	j.bring(ctx, t, j.releases[1], "cri-proxy_*.deb")
	before := j.mainPID(ctx, t)
	shown := j.do(ctx, t, "systemctl restart cri-proxy")
	wantContains(t, shown, " 0 problems,")
	if strings.Contains(shown, "it runs version") {
		t.Error("an older version runs after the upgrade")
	}
	wantContains(t, j.shell(ctx, t, "cri-proxy status"), "VERSION  "+newVersion+",")
	if j.mainPID(ctx, t) == before {
		t.Error("it is the same process as before")
	}
	j.lives(ctx, t, "upgrade")
	j.stage(t, "restart")
	j.shell(ctx, t, "for i in $(seq 10); do systemctl restart cri-proxy; done")
	j.lives(ctx, t, "restart")
}

func (j *journey) mainPID(ctx context.Context, t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(j.on(ctx, t, j.Control(), "systemctl", "show", "--property", "MainPID", "--value", "cri-proxy"))
}

// testKill: systemd starts the proxy again, and who calls meanwhile waits. A call
// that was in flight fails.
func testKill(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.stage(t, "kill")
	inFlight := make(chan string, 1)
	go func() {
		id := strings.TrimPrefix(j.pods["before"].ID, "containerd://")
		text, err := j.Shell(ctx, j.Control(), "/root", "crictl --runtime-endpoint unix://"+criSocket+" --timeout 60s exec --sync "+id+" /bin/sleep 30")
		inFlight <- fmt.Sprint(text, err)
	}()
	wait(ctx, t, func() error {
		_, err := j.Shell(ctx, j.Control(), "/root",
			`curl --silent --unix-socket /run/cri-proxy/admin.sock http://proxy/metrics | grep 'cri_proxy_requests_in_flight{method="ExecSync"} 1'`)
		return err
	})
	// It is dead when systemd has seen it: until then it may have taken calls.
	at := strings.TrimSpace(j.shell(ctx, t, "pid=$(systemctl show --property MainPID --value cri-proxy)\nkill -9 $pid\nwhile kill -0 $pid 2>/dev/null; do :; done\ndate +%s%N"))
	nanoseconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	j.killed = time.Unix(0, nanoseconds)
	wantContains(t, <-inFlight, "code = Unavailable")
	j.lives(ctx, t, "kill")
}

// stage tells the caller what happens from now on.
func (j *journey) stage(t *testing.T, name string) {
	t.Helper()
	if err := j.caller.Stage(name); err != nil {
		t.Fatal(err)
	}
}

// wantCalls: no call has failed but those in flight when the proxy was killed.
func (j *journey) wantCalls(t *testing.T) {
	t.Helper()
	seen, err := j.caller.End()
	if err != nil {
		t.Fatal(err)
	}
	total := calls.Seen{}
	for _, stage := range seen {
		t.Logf("%-16s %5d calls, %d failed, the longest took %s", stage.Stage, stage.Calls, len(stage.Failed), stage.Longest)
		total.Calls += stage.Calls
		for _, failure := range stage.Failed {
			if failure.Began.Before(j.killed) && stage.Stage == "kill" {
				t.Logf("in flight when the proxy was killed: %+v", failure)
				continue
			}
			t.Errorf("a call failed during %s: %+v", stage.Stage, failure)
		}
	}
	if total.Calls < 100 {
		t.Errorf("only %d calls were made", total.Calls)
	}
}
