package kind_test

import (
	"bufio"
	"context"
	"strings"
	"testing"
	"time"
)

// testOneFile puts the program itself on the node.
func testOneFile(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	j.bring(ctx, t, j.releases[1], "cri-proxy_*_linux_*.tar.gz")
	j.do(ctx, t, "/usr/local/bin/cri-proxy")
	wantContains(t, j.shell(ctx, t, "cri-proxy version"), "cri-proxy "+newVersion+" ")
}

// deadConfig is one whose default handler has a runtime that is not there.
const deadConfig = `mkdir -p /etc/cri-proxy
cat >/etc/cri-proxy/config.toml <<'END'
version = 1
default_handler = "dead"
[backends.containerd]
endpoint = "unix:///run/containerd/containerd.sock"
[handlers.runc]
backend = "containerd"
[backends.dead]
endpoint = "unix:///run/dead.sock"
[handlers.dead]
backend = "dead"
END
`

// strayConfig has not the runtime that the kubelet has.
const strayConfig = `mkdir -p /etc/cri-proxy
cat >/etc/cri-proxy/config.toml <<'END'
version = 1
default_handler = "runc"
[backends.containerd]
endpoint = "unix:///run/other/containerd.sock"
[handlers.runc]
backend = "containerd"
END
`

// kubeletDropIn is a change of the kubelet's unit.
func kubeletDropIn(line string) string {
	return "mkdir -p /etc/systemd/system/kubelet.service.d\n" +
		"printf '[Service]\\n%s\\n' '" + line + "' >/etc/systemd/system/kubelet.service.d/99-broken.conf\nsystemctl daemon-reload\n"
}

const noConfig, noDropIn = "rm -r /etc/cri-proxy\n", "rm /etc/systemd/system/kubelet.service.d/99-broken.conf\nsystemctl daemon-reload\n"

// installPatience is what a broken installation has for each of its two waits.
const installPatience = 10 * time.Second

// testBroken: an installation that cannot succeed leaves the node as it was, by
// itself and in time.
func testBroken(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	for _, test := range []struct{ name, why, breakIt, mend string }{
		{"no-backend", "wait for the proxy: not within 10s", deadConfig, noConfig},
		{"backend-hangs", "wait for the proxy: not within 10s", deadConfig + hangingSocket, noConfig + "systemctl stop dead.socket dead.service\n"},
		{"other-runtime", "is no backend in /etc/cri-proxy/config.toml", strayConfig, noConfig},
		{"no-configuration", "none is overwritten", "mkdir /etc/cri-proxy; echo version = 2 >/etc/cri-proxy/config.toml\n", noConfig},
		{
			"kubelet-does-not-start", "systemctl restart kubelet.service",
			kubeletDropIn("ExecStartPre=/bin/sh -c \"! grep -q cri-proxy.sock /var/lib/kubelet/config.yaml\""), noDropIn,
		},
		{
			"kubelet-goes-elsewhere", "does not list its pods through the proxy",
			kubeletDropIn("ExecStartPre=/bin/sed -i s,/run/cri-proxy/cri-proxy.sock,/run/containerd/containerd.sock, /var/lib/kubelet/config.yaml"), noDropIn,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			j.shell(ctx, t, test.breakIt)
			before := j.tree(ctx, t)
			began := time.Now()
			said := j.refused(ctx, t, "cri-proxy install --timeout "+installPatience.String())
			if took := time.Since(began); took > 3*installPatience {
				t.Errorf("install took %s", took)
			}
			t.Log(said)
			wantContains(t, said, test.why)
			j.wantTree(ctx, t, before)
			j.onProxy(ctx, t, false)
			j.lives(ctx, t, "broken-"+test.name)
			j.shell(ctx, t, test.mend)
		})
	}
}

// hangingSocket is one of systemd's that nobody accepts connections from.
const hangingSocket = `systemd-run --unit dead --socket-property ListenStream=/run/dead.sock /bin/sleep infinity
systemctl start dead.service
`

// testKilledInstall: uninstall finishes what a killed installation has begun.
func testKilledInstall(ctx context.Context, t *testing.T, j *journey) {
	t.Helper()
	before := j.tree(ctx, t)
	for _, step := range []string{"wait for the proxy", "write /var/lib/kubelet/instance-config.yaml", "systemctl restart kubelet.service", "watch the node"} {
		t.Run(strings.ReplaceAll(step, "/", "-"), func(t *testing.T) {
			j.killInstall(ctx, t, step, "KILL", 137)
			wantContains(t, j.refused(ctx, t, "cri-proxy install"), "finishes an installation that was killed")
			j.again(ctx, t, "cri-proxy uninstall\n")
			j.wantTree(ctx, t, before)
			j.onProxy(ctx, t, false)
			j.lives(ctx, t, strings.ToLower("killed-"+strings.NewReplacer("/", "-", " ", "-", ".", "-").Replace(step)))
		})
	}
	t.Run("hung up", func(t *testing.T) { // It is undone by itself, as by Ctrl-C.
		j.killInstall(ctx, t, "watch the node", "HUP", 1)
		j.wantTree(ctx, t, before)
		j.onProxy(ctx, t, false)
		j.lives(ctx, t, "hung-up")
	})
	j.shell(ctx, t, "rm /usr/local/bin/cri-proxy")
	j.shell(ctx, t, "rm -r /var/lib/cri-proxy")
	j.wantNothing(ctx, t)
}

// killInstall ends an installation by a signal as soon as it says that it begins a step.
func (j *journey) killInstall(ctx context.Context, t *testing.T, step, signal string, want int) {
	t.Helper()
	cmd := j.Command(ctx, "docker", "exec", j.Control(), "sh", "-c", "echo $$ >/run/install.pid; exec cri-proxy install")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		t.Log(lines.Text())
		if lines.Text() == step {
			found = true
			j.shell(ctx, t, "kill -"+signal+" $(cat /run/install.pid); rm /run/install.pid")
		}
	}
	if code := exitCode(cmd.Wait()); !found || code != want {
		t.Fatalf("install was to be killed at %q (seen: %t), and ended with exit code %d", step, found, code)
	}
}
