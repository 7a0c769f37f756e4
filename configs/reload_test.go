package configs

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNeedsRestart: each key that only a restart takes over is named at its
// place, and no other.
func TestNeedsRestart(t *testing.T) {
	t.Parallel()
	const rest = "version = 1\ndefault_handler = \"a\"\nbackends.b.endpoint = \"/b\"\nhandlers.a.backend = \"b\"\n"
	before := mustParse(t, rest)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", rest, ""},
		{"another way to write it", rest + "server.listen = \"/run/cri-proxy/cri-proxy.sock\"\n", ""},
		{"what a reload takes over", rest + "log.level = \"debug\"\nserver.shutdown_timeout = \"1s\"\nhandlers.c.backend = \"b\"\n", ""},
		{"one", rest + "tracing.endpoint = \"a:1\"\n", "in.toml:5:9: tracing.endpoint: has changed, and only a restart takes that over: restart cri-proxy, or set it back"},
	} {
		if got := mustParse(t, c.text).NeedsRestart(before).Error(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	all := "server.listen = \"/x\"\nserver.socket_mode = \"0600\"\nstate.dir = \"/y\"\nadmin.listen = \"/z\"\nadmin.metrics_listen = \"a:1\"\n" +
		"tracing.endpoint = \"a:1\"\nkubernetes.kubeconfig = \"/k\"\nservice_env.services_file = \"/s\"\n"
	if got := mustParse(t, rest+all).NeedsRestart(before); len(got) != 8 || got[7].Line != 12 {
		t.Errorf("all of them: %v", got)
	}
}

// TestAdminListen: a file with mistakes still tells where its daemon is asked.
func TestAdminListen(t *testing.T) {
	t.Parallel()
	standard := Default().Admin.Listen
	for _, tt := range []struct{ name, text, want string }{
		{"a mistake elsewhere", "version = 2\n[nonsense]\n[admin]\nlisten = \"/run/a.sock\"\n", "/run/a.sock"},
		{"not named", "version = 2\n", standard},
		{"a mistake in it", "[admin]\nlisten = 3\n", standard},
		{"no TOML", "[admin\nlisten = \"/run/a.sock\"\n", standard},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := AdminListen(file); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := AdminListen(filepath.Join(t.TempDir(), "none")); got != standard {
		t.Errorf("got %q for no file, want %q", got, standard)
	}
}
