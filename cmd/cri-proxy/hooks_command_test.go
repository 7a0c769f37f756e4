package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/admin"
)

// hooksCommand runs "cri-proxy hooks" in this process, and returns its exit code and
// what it wrote.
func (p *proxy) hooksCommand(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, errs bytes.Buffer
	args = append(append([]string{"hooks"}, args...), "--admin", filepath.Join(p.dir, "a"))
	code = execute(p.t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// want runs a command that succeeds, and looks at what it prints.
func (p *proxy) want(pattern string, args ...string) {
	p.t.Helper()
	code, stdout, stderr := p.hooksCommand(args...)
	if code != 0 || stderr != "" || !regexp.MustCompile(pattern).MatchString(stdout) {
		p.t.Errorf("hooks %s: exit code %d\n%s%s\nwant %s", strings.Join(args, " "), code, stdout, stderr, pattern)
	}
}

// refuse runs a command that fails.
func (p *proxy) refuse(pattern string, args ...string) {
	p.t.Helper()
	code, stdout, stderr := p.hooksCommand(args...)
	if code != 1 || stdout != "" || !regexp.MustCompile(pattern).MatchString(stderr) {
		p.t.Errorf("hooks %s: exit code %d\n%s%s\nwant %s", strings.Join(args, " "), code, stdout, stderr, pattern)
	}
}

// TestHooksCommands: what is owed and what became of it, and how to change that.
func TestHooksCommands(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, alpha := hooked(t, hook("post_start", command("exit", "4"), `on_failure = "ignore"`)+hook("pre_stop", r.action(), `timeout = "1m"`))
	p.want(`^ID +STATE +EVENT +HOOK +KIND +HANDLER +POD +CONTAINER +ATTEMPTS +ACCEPTED\n$`, "list")
	_, container := p.started("runc")
	id := p.delivery(journal.PostStart, journal.Failed).ID

	p.want(`\n`+id+` +failed +PostStart +post_start +exec +runc +default/runc +c +1 +\d{4}-\S+\n$`, "list")
	p.want(`^ID +`+id+`\nSTATE +failed\nREASON +.*exit code 4.*\nEVENT +PostStart\nHOOK +post_start \(exec, from node\)\nHANDLER +runc\n`+
		`POD +default/runc \(uid-runc\)\nCONTAINER +c \(`+container+`\)\nSANDBOX +\w{64}\nATTEMPTS +1 of 1, 5s each\nACCEPTED +\S+\nFINISHED +\S+\n$`, "show", id)
	p.want(`^would try the PostStart hook "post_start" of container c of pod default/runc again, if its container runs\n$`, "retry", id, "--dry-run")
	if n := len(alpha.Calls("ExecSync")); n != 1 {
		t.Errorf("a dry run ran %d hooks", n-1)
	}
	p.want(`^hook `+id+` is tried again\n$`, "retry", id)
	executed(t, alpha, 2)
	if d := p.delivery(journal.PostStart, journal.Failed); d.ID != id {
		t.Errorf("the retry is %+v", d)
	}
	p.want(`^would remove the record of the PostStart hook "post_start" of container c of pod default/runc, which is failed\n$`, "drop", id, "--dry-run")
	p.want(`^hook `+id+` is dropped\n$`, "drop", id)
	for _, command := range []string{"show", "retry", "drop"} {
		p.refuse(`^cri-proxy: \w+ /v1/hooks/`+id+`\S*: 404 Not Found: .*`+id, command, id)
	}

	// A stop whose hook is given up goes on.
	stopped := async(func() error { return p.stopContainer(container, 30) })
	r.next()
	owed := p.delivery(journal.PreStop, journal.Running).ID
	p.refuse(`409 Conflict: .*only a PostStart hook that has failed`, "retry", owed)
	p.refuse(`^cri-proxy: the PreStop hook .* is running: only a PostStart hook that has failed`, "retry", owed, "--dry-run")
	p.want(`^would give up the PreStop hook .*, which is running\n$`, "drop", owed, "--dry-run")
	p.want(`dropped`, "drop", owed)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	p.delivery(journal.PreStop, journal.Moot)
}

// TestHooksAsJSON: -o json is the body of the admin socket.
func TestHooksAsJSON(t *testing.T) {
	t.Parallel()
	p, _ := hooked(t, hook("post_start", command("hello")))
	p.started("runc")
	id := p.delivery(journal.PostStart, journal.Delivered).ID
	for path, args := range map[string][]string{"/v1/hooks": {"list", "-o", "json"}, "/v1/hooks/" + id: {"show", id, "-o", "json"}} {
		body, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), path)
		if err != nil {
			t.Fatal(err)
		}
		if code, stdout, stderr := p.hooksCommand(args...); code != 0 || stdout != string(body) || stderr != "" {
			t.Errorf("%v: exit code %d\n%s%s\nwant %s", args, code, stdout, stderr, body)
		}
	}
	var entry hooks.Entry
	if _, stdout, _ := p.hooksCommand("show", id, "-o", "json"); json.Unmarshal([]byte(stdout), &entry) != nil || entry.ID != id {
		t.Errorf("shown: %+v", entry)
	}
}

// TestHookMetrics: they are on the daemon's registry.
func TestHookMetrics(t *testing.T) {
	t.Parallel()
	p, _ := hooked(t, hook("post_start", command("hello")))
	_, container := p.started("runc")
	if err := p.stopContainer(container, 1); err != nil {
		t.Error(err)
	}
	body, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`cri_proxy_hook_deliveries_total{event="PostStart",handler="runc",result="delivered"} 1`,
		`cri_proxy_hook_duration_seconds_count{event="PostStart",handler="runc"} 1`,
		`cri_proxy_journal_records{state="delivered"} 1`,
		`cri_proxy_journal_oldest_seconds 0`,
		`cri_proxy_requests_total{backend="alpha",code="OK",method="StartContainer"} 1`,
		`cri_proxy_requests_total{backend="alpha",code="OK",method="StopContainer"} 1`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
}
