package real_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// action is what a hook does, and what must become of it.
type action struct {
	name  string
	exec  []string
	path  string // of an HTTP hook
	sleep int    // seconds
	delay int    // seconds until the container's server listens

	keys string // more keys of a hook in the node's configuration
	only string // the places that it can stand in, if not all: "node", "PreStop" …

	state    string
	attempts int    // 0 is 1
	reason   string // why it was not delivered
	grace    string // the same for a hook that only the grace period bounds, as those of pods
	seen     string // what it wrote, or what its server saw
	least    time.Duration
	ignored  bool // it fails and the container runs on
	dies     bool // the container ends meanwhile
}

const (
	tookLonger  = "it took longer than 1s"
	graceIsOver = "the grace period is over"
	hasEnded    = "the container has ended"
)

// actions are those of the table. The marks must not be seen in the log.
func actions() []action {
	dying := `timeout = "60s"`
	return []action{
		{name: "exec", exec: []string{"/bin/append", "/hooks/log", "ran"}, state: "delivered", seen: "ran\n"},
		{name: "exec-prints", exec: []string{"/bin/echo", outputMark}, state: "delivered"},
		{name: "exec-fails", exec: []string{"/bin/cat", "/" + outputMark}, keys: "attempts = 1", state: "failed", reason: "exit code 1"},
		{name: "exec-fails-twice", exec: []string{"/bin/try", "/hooks/log", "9"}, keys: "attempts = 2", only: "node", state: "failed", attempts: 2, reason: "exit code 1", seen: "try\ntry\n"},
		{name: "exec-ignored", exec: []string{"/bin/exit", "3"}, keys: "attempts = 1\non_failure = \"ignore\"", only: "node PostStart", state: "failed", reason: "exit code 3", ignored: true},
		{name: "exec-hangs", exec: []string{"/bin/sleep", "60"}, keys: "attempts = 1\ntimeout = \"1s\"", state: "failed", reason: tookLonger, grace: graceIsOver, least: time.Second},
		{name: "exec-leaves", exec: []string{"/bin/leave", "60"}, keys: "attempts = 1\ntimeout = \"1s\"", state: "failed", reason: tookLonger, grace: graceIsOver, least: time.Second},
		{name: "exec-again", exec: []string{"/bin/try", "/hooks/log", "2"}, keys: "attempts = 3\nbackoff = \"500ms\"", only: "node", state: "delivered", attempts: 2, seen: "try\ntry\n", least: 500 * time.Millisecond},
		{name: "exec-dies", exec: []string{"/bin/stubborn", "/hooks/log"}, keys: dying, state: "moot", reason: hasEnded, seen: "RUNS\n", dies: true},
		{name: "exec-dies-early", exec: []string{"/bin/sleep", "60"}, keys: dying, state: "moot", reason: hasEnded, dies: true},

		{name: "http", path: "/here", state: "delivered", seen: "GET /here"},
		{name: "http-500", path: "/status/500", keys: "attempts = 1", state: "failed", reason: "it answered 500 Internal Server Error", seen: "GET /status/500"},
		{name: "http-ignored", path: "/status/404", keys: "attempts = 1\non_failure = \"ignore\"", only: "node PostStart", state: "failed", reason: "it answered 404 Not Found", ignored: true},
		{name: "http-hangs", path: "/slow/60", keys: "attempts = 1\ntimeout = \"1s\"", state: "failed", reason: tookLonger, grace: graceIsOver, least: time.Second},
		{name: "http-again", path: "/busy/1", keys: "attempts = 3", only: "node", state: "delivered", attempts: 2, seen: "GET /busy/1"},
		{name: "http-late", path: "/late", delay: 1, keys: "attempts = 1\ntimeout = \"20s\"", state: "delivered", seen: "GET /late", least: 500 * time.Millisecond},
		{name: "http-redirected", path: "/redirect?to=/landed", state: "delivered", seen: "GET /landed"},
		{name: "http-elsewhere", path: "/redirect?to=http://127.0.0.9:1/", keys: "attempts = 1", state: "delivered", seen: "GET /redirect"},
		{name: "http-dies", path: "/slow/60", keys: dying, state: "moot", reason: hasEnded, dies: true},

		{name: "sleep", sleep: 1, state: "delivered", least: time.Second},
		{name: "sleep-behind", sleep: 50, keys: "timeout = \"60s\"\nwait = false", only: "node PostStart", state: "running"},
		{name: "sleep-hangs", sleep: 50, keys: dying, only: "pod PreStop", state: "failed", reason: graceIsOver, grace: graceIsOver, least: 2 * time.Second},
		{name: "sleep-dies", sleep: 50, keys: dying, state: "moot", reason: hasEnded, dies: true},
	}
}

// outputMark is what a hook prints, and what it fails on.
const outputMark = "mark-of-a-hook"

// hookRow is an action at an event, declared in one of the two ways.
type hookRow struct {
	action

	event string
	way   string // "node" or "pod"
	port  int    // of the container's server
}

// hookRows are all that can be: the hooks of pods have one attempt, and their
// PostStarts a minute, which is too long to see it end.
func hookRows() []hookRow {
	var rows []hookRow
	for _, way := range []string{"node", "pod"} {
		for _, event := range []string{postStart, preStop} {
			for _, a := range actions() {
				isEndless := a.grace != "" && way == "pod" && event == postStart
				if (a.only == "" || strings.Contains(way+" "+event, a.only)) && !isEndless {
					rows = append(rows, hookRow{action: a, event: event, way: way, port: 9000 + len(rows)})
				}
			}
		}
	}
	return rows
}

// name is the row's container, which its hook is for.
func (r hookRow) name() string { return strings.ToLower(r.way + "-" + r.event + "-" + r.action.name) }

// command is what its container runs. It ends well at TERM.
func (r hookRow) command() []string {
	return []string{"/bin/serve", strconv.Itoa(r.port), strconv.Itoa(r.delay)}
}

// graceSeconds are few where nothing else ends the hook.
func (r hookRow) graceSeconds() int64 {
	if r.way == "pod" && r.grace != "" {
		return 2
	}
	return 30
}

func (r hookRow) why() string {
	if r.way == "pod" && r.grace != "" {
		return r.grace
	}
	return r.reason
}

// kills tells that the hook's failure ends the container.
func (r hookRow) kills() bool { return r.event == postStart && r.state == "failed" && !r.ignored }

// toml is the hook in the configuration of the handler.
func (r hookRow) toml() string {
	do := fmt.Sprintf("sleep = { seconds = %d }", r.sleep)
	switch {
	case r.exec != nil:
		do = fmt.Sprintf(`exec = { command = ["%s"] }`, strings.Join(r.exec, `", "`))
	case r.path != "":
		do = fmt.Sprintf("http_get = { port = %d, path = %q }", r.port, r.path)
	}
	list := map[string]string{postStart: "post_start", preStop: "pre_stop"}[r.event]
	return fmt.Sprintf("[[handlers.runc.hooks.%s]]\nname = %q\n%s\n%s\nmatch = { containers = [%q] }\n", list, r.name(), do, r.keys, r.name())
}

// podHooks is the annotation with the hooks of all rows of pods.
func podHooks(rows []hookRow) (string, error) {
	type document map[string]any
	all := document{}
	for _, r := range rows {
		if r.way != "pod" {
			continue
		}
		do := document{"sleep": document{"seconds": r.sleep}}
		switch {
		case r.exec != nil:
			do = document{"exec": document{"command": r.exec}}
		case r.path != "":
			do = document{"httpGet": document{"port": r.port, "path": r.path}}
		}
		list := map[string]string{postStart: "postStart", preStop: "preStop"}[r.event]
		all[r.name()] = document{list: []document{do}}
	}
	encoded, err := json.Marshal(all)
	return string(encoded), err
}
