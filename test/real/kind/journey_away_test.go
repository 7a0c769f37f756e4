package kind_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// testSecondAway takes the second runtime away, whose pods have to end first.
func testSecondAway(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.stage(t, "second runtime away")
	j.endPod(ctx, t, "in-second")
	wait(ctx, t, func() error { return j.unused(ctx, second) })
	j.do(ctx, t, "mv /etc/cri-proxy/config.toml.before")
	if after := j.reloadedAfter(ctx, t, reload{}); !after.Success { // There was none since the last start.
		t.Fatalf("the second backend could not be taken away: %+v", after)
	}
	j.do(ctx, t, "disable --now containerd-second")
	j.kubectl(ctx, t, "delete", "runtimeclass", second)
	j.lives(ctx, t, "second-runtime-away")
}

// unused says which pods of a handler the proxy still knows.
func (j *journey) unused(ctx context.Context, handler string) error {
	text, err := j.On(ctx, j.Control(), "cri-proxy", "status", "-o", "json")
	if err != nil {
		return err
	}
	var status struct {
		Handlers []struct {
			Name      string `json:"name"`
			Sandboxes int    `json:"sandboxes"`
		} `json:"handlers"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return err
	}
	for _, h := range status.Handlers {
		if h.Name == handler && h.Sandboxes == 0 {
			return nil
		}
	}
	return fmt.Errorf("handler %s has pods, or is not there: %+v", handler, status.Handlers)
}

// testUninstall: all is as it was before the installation, but for the package,
// which is a newer one, and the proxy's state.
func testUninstall(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	before := j.tree(ctx, t)
	shown := j.do(ctx, t, "cri-proxy uninstall --dry-run")
	wantContains(t, strings.ReplaceAll(shown, `"`, ""), "\n+containerRuntimeEndpoint: unix:///run/containerd/containerd.sock")
	j.wantTree(ctx, t, before)
	j.wantCalls(t)
	wantContains(t, j.do(ctx, t, "cri-proxy uninstall\n"), "everything is as it was before cri-proxy install")
	j.onProxy(ctx, t, false)
	j.lives(ctx, t, "uninstall")
	j.wantTree(ctx, t, j.packaged, "/usr/bin/cri-proxy (content)")
}

// testRemove: the package leaves nothing behind, in the files and in systemd.
func testRemove(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.do(ctx, t, "dpkg --purge")
	j.wantNothing(ctx, t)
	j.lives(ctx, t, "remove")
}

// wantNothing: systemd knows nothing of the proxy, and nothing of it is left.
func (j *journey) wantNothing(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, list := range []string{"list-units --all", "list-unit-files"} {
		if left := j.shell(ctx, t, "systemctl "+list+" --no-legend --no-pager 'cri-proxy*' || true"); left != "" {
			t.Errorf("systemctl %s still shows\n%s", list, left)
		}
	}
	if left := j.shell(ctx, t, "find /etc /usr /var/lib /run -xdev -name '*cri-proxy*'"); left != "" {
		t.Errorf("this is left:\n%s", left)
	}
	j.wantTree(ctx, t, j.bare)
}

// testByHand: the package without cri-proxy install, and the kubelet told by hand.
func testByHand(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.again(ctx, t, "dpkg --install")
	j.do(ctx, t, "systemctl enable --now cri-proxy.socket")
	j.on(ctx, t, j.Control(), "crictl", "--runtime-endpoint", "unix://"+criSocket, "version")
	j.lives(ctx, t, "by-hand")
	j.do(ctx, t, "cri-proxy doctor")
	j.onProxy(ctx, t, true)
	j.lives(ctx, t, "by-hand-kubelet")
	wantContains(t, j.refused(ctx, t, "dpkg --remove cri-proxy"), "the kubelet of this node runs on cri-proxy")
	if state := j.state(ctx, "cri-proxy.service"); state != "active" {
		t.Errorf("cri-proxy.service is %s after its package was not removed", state)
	}
}

// testBackup: the state is copied, and the node goes on. Callers are refused
// meanwhile, so that it comes after those who must not be.
func testBackup(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	for _, block := range blocksOf(t, j.root, "docs/operations.md", "journey") {
		j.execute(ctx, t, block)
	}
	j.shell(ctx, t, "test -s /var/lib/cri-proxy/state.db.copy && rm /var/lib/cri-proxy/state.db.copy")
	j.onProxy(ctx, t, true)
	j.lives(ctx, t, "backup")
}

// testEmergency: the proxy cannot run any more, nor can its program.
func testEmergency(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.shell(ctx, t, "chmod 0 /usr/bin/cri-proxy; systemctl restart cri-proxy || true")
	shown := j.do(ctx, t, "grep endpoint /etc/cri-proxy/config.toml")
	for _, part := range []string{"/var/lib/kubelet/config.yaml:", "/var/lib/kubelet/instance-config.yaml:", `endpoint = "unix:///run/containerd/containerd.sock"`} {
		wantContains(t, shown, part)
	}
	j.do(ctx, t, "systemctl disable --now cri-proxy.socket")
	j.onProxy(ctx, t, false)
	j.lives(ctx, t, "emergency")
	j.again(ctx, t, "dpkg --purge")
	j.wantNothing(ctx, t)
}

// testEmergencyInstalled: the same on a node on which cri-proxy install was run;
// afterwards uninstall puts back the rest.
func testEmergencyInstalled(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.again(ctx, t, "dpkg --install")
	j.again(ctx, t, "cri-proxy install\n")
	j.onProxy(ctx, t, true)
	j.shell(ctx, t, "chmod 0 /usr/bin/cri-proxy; systemctl restart cri-proxy || true")
	j.again(ctx, t, "grep endpoint /etc/cri-proxy/config.toml")
	j.again(ctx, t, "systemctl disable --now cri-proxy.socket")
	j.onProxy(ctx, t, false)
	j.lives(ctx, t, "emergency-installed")
	j.shell(ctx, t, "chmod 755 /usr/bin/cri-proxy")
	j.again(ctx, t, "cri-proxy uninstall\n")
	j.again(ctx, t, "dpkg --purge")
	j.wantNothing(ctx, t)
	j.lives(ctx, t, "end")
}
