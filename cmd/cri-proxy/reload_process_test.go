package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestReloadSignal: SIGHUP reads the file anew, systemd hears of it as of a
// notify service's, and a proxy that is only starting is not ended by it.
func TestReloadSignal(t *testing.T) {
	t.Parallel()
	fake := alpha(t)
	listed := make(chan struct{})
	fake.Inject("Version", fakeruntime.Fault{Until: listed, Times: 1})
	socket, path := systemdSocket(t)
	n := newNode(t, fake)
	n.env = []string{"NOTIFY_SOCKET=" + path}
	p := n.start()
	if _, err := fake.WaitCalls(t.Context(), "Version", 1); err != nil {
		t.Fatal(err)
	}
	p.hangUp()
	close(listed)
	if got := news(t, socket); got != "READY=1" {
		t.Errorf("told %q, want READY=1 first", got)
	}
	reloaded := func(what, want string) {
		t.Helper()
		got := news(t, socket)
		match := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=(\d+)\n?$`).FindStringSubmatch(got)
		if match == nil {
			t.Fatalf("%s: told %q, want RELOADING=1", what, got)
		}
		if usec, err := strconv.ParseUint(match[1], 10, 64); err != nil || usec == 0 {
			t.Errorf("%s: at %s, %v", what, match[1], err)
		}
		if got := news(t, socket); got != "READY=1" {
			t.Errorf("%s: told %q, want READY=1", what, got)
		}
		body, err := admin.Get(t.Context(), n.path("a"), "/v1/status")
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: the status is %s, %v, want %s in it", what, body, err, want)
		}
	}
	reloaded("a signal while it starts", `"success":true`)
	n.configure(fake, `log.level = "debug"`, `handlers.more.backend = "alpha"`)
	p.hangUp()
	reloaded("a handler more", `"name":"more"`)
	if err := os.WriteFile(n.path("c.toml"), []byte("version = 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.hangUp()
	reloaded("a bad file", `"success":false,"error":"the configuration cannot be used:`)
	if log := p.log.String(); !strings.Contains(log, "the configuration was not reloaded: the one before stays in effect, unchanged") || !strings.Contains(log, "c.toml:1:1: version: ") {
		t.Error("the log does not say what is wrong")
	}
	if err := os.Remove(n.path("c.toml")); err != nil {
		t.Fatal(err)
	}
	p.hangUp()
	reloaded("no file", `no such file`)
	p.stop()
}

func (p *process) hangUp() {
	p.n.t.Helper()
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		p.n.t.Fatal(err)
	}
}
