package configs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/configs"
)

// maxExposure is "systemd-analyze security" of the service, of 10. What is left is
// the network, the runtimes' sockets, and plugins that are other people's programs.
const maxExposure = 2.1

// units writes the shipped units to a directory, with a command that is there.
func units(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	command := filepath.Join(dir, "cri-proxy")
	if err := os.WriteFile(command, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"cri-proxy.service": configs.ServiceUnit(), "cri-proxy.socket": configs.SocketUnit()} {
		text = bytes.ReplaceAll(text, []byte("ExecStart=/usr/bin/cri-proxy "), []byte("ExecStart="+command+" "))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("LEFT OUT: systemd checks its units, and systemd-analyze is not here (Debian: apt-get install systemd)")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestUnitsAreValid: systemd has nothing to say about them.
func TestUnitsAreValid(t *testing.T) {
	t.Parallel()
	dir := units(t)
	for _, name := range []string{"cri-proxy.service", "cri-proxy.socket"} {
		if out := analyze(t, "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, name)); out != "" {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

func TestServiceIsHardened(t *testing.T) {
	t.Parallel()
	out := analyze(t, "security", "--offline=true", "--no-pager", filepath.Join(units(t), "cri-proxy.service"))
	found := regexp.MustCompile(`Overall exposure level for cri-proxy.service: ([0-9.]+)`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no level in:\n%s", out)
	}
	level, err := strconv.ParseFloat(found[1], 64)
	if err != nil || level > maxExposure {
		t.Errorf("the exposure is %s, more than %v:\n%s", found[1], maxExposure, out)
	}
}

// TestUnitsFitTheDefaults: the socket is the one that the configuration names, and
// what a node relies on is there.
func TestUnitsFitTheDefaults(t *testing.T) {
	t.Parallel()
	cfg := configs.Default()
	mode, err := cfg.Server.SocketMode.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	socket, service := string(configs.SocketUnit()), string(configs.ServiceUnit())
	for _, line := range []string{"ListenStream=" + strings.TrimPrefix(cfg.Server.Listen, "unix://"), "SocketMode=" + string(mode), "WantedBy=sockets.target"} {
		if !strings.Contains(socket, "\n"+line+"\n") {
			t.Errorf("cri-proxy.socket has no line %s", line)
		}
	}
	lines := []string{
		"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=always", "StartLimitIntervalSec=0", "Before=kubelet.service",
		"Requires=cri-proxy.socket", "WatchdogSec=60", "StateDirectory=" + filepath.Base(cfg.State.Dir), "WantedBy=multi-user.target",
	}
	for _, line := range lines {
		if !strings.Contains(service, "\n"+line+"\n") {
			t.Errorf("cri-proxy.service has no line %s", line)
		}
	}
	// A directory of the service's own would go away with each stop, and the socket with it.
	if strings.Contains(service, "RuntimeDirectory") {
		t.Error("cri-proxy.service takes the directory of the sockets")
	}
}
