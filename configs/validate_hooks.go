package configs

import (
	"slices"
	"strings"
)

func (v *validator) hooks(p path, h Hooks) {
	v.oneOf(p.with("pod_pre_stop"), h.PodPreStop, PodPreStopKubelet, PodPreStopEnsure)
	names := map[string]bool{}
	for i, hook := range h.PostStart {
		at := p.with("post_start", index(i))
		v.hook(at, hook.Hook, names)
		v.oneOf(at.with("on_failure"), hook.OnFailure, OnFailureKill, OnFailureIgnore)
	}
	names = map[string]bool{}
	for i, hook := range h.PreStop {
		v.hook(p.with("pre_stop", index(i)), hook, names)
	}
}

// hook checks one hook; names are those of the hooks before it.
func (v *validator) hook(p path, h Hook, names map[string]bool) {
	if v.required(p.with("name"), "write a name that no other hook of this event has") {
		v.notEmpty(p.with("name"), h.Name)
	}
	if names[h.Name] && h.Name != "" {
		v.report(p.with("name"), "%q is already the name of another hook of this event, choose a different one", h.Name)
	}
	names[h.Name] = true
	v.action(p, h)
	v.positive(p.with("timeout"), h.Timeout)
	if h.Attempts < 1 {
		v.report(p.with("attempts"), "is %d, must be at least 1", h.Attempts)
	}
	if h.Backoff.Duration <= 0 || h.Backoff.Duration > MaxBackoff {
		v.report(p.with("backoff"), "is %s, must be more than 0s and at most %s", h.Backoff, MaxBackoff)
	}
	for i, s := range h.Match.Containers {
		v.notEmpty(p.with("match", "containers", index(i)), s)
	}
	for i, s := range h.Match.Namespaces {
		v.notEmpty(p.with("match", "namespaces", index(i)), s)
	}
}

// action checks that a hook does exactly one thing, and what it is.
func (v *validator) action(p path, h Hook) {
	given := slices.DeleteFunc([]string{"exec", "http_get", "sleep"}, func(s string) bool { return !v.source.mentions(p.with(s)) })
	switch len(given) {
	case 0:
		v.report(p, "does nothing, must have exactly one of exec, http_get and sleep")
	case 1:
	default:
		v.report(p.with(given[1]), "is the second of %s, a hook must have exactly one of them", strings.Join(given, " and "))
	}
	if h.Exec != nil {
		v.exec(p.with("exec"), *h.Exec)
	}
	if h.HTTPGet != nil {
		v.httpGet(p.with("http_get"), *h.HTTPGet)
	}
	if h.Sleep != nil {
		v.sleep(p, *h.Sleep, h.Timeout)
	}
}

func (v *validator) exec(p path, e ExecHook) {
	if !v.required(p.with("command"), "write the program and its arguments as an array") {
		return
	}
	if len(e.Command) == 0 {
		v.report(p.with("command"), "is empty, must be the program and its arguments")
	} else {
		v.notEmpty(p.with("command", index(0)), e.Command[0])
	}
}

func (v *validator) httpGet(p path, g HTTPGetHook) {
	v.oneOf(p.with("scheme"), g.Scheme, "http", "https")
	if strings.ContainsAny(g.Host, "/@?# \t\r\n") {
		v.report(p.with("host"), "is %q, must be a name or an address only", g.Host)
	}
	if v.required(p.with("port"), "write a number from 1 to 65535") && (g.Port < 1 || g.Port > 65535) {
		v.report(p.with("port"), "is %d, must be from 1 to 65535", g.Port)
	}
	if !strings.HasPrefix(g.Path, "/") || strings.ContainsFunc(g.Path, isControl) {
		v.report(p.with("path"), "is %q, must begin with / and hold no control characters", g.Path)
	}
	for i, h := range g.Headers {
		v.header(p.with("headers", index(i)), h)
	}
}

// header checks a name by the token rule of RFC 9110 and a value by what no server would misread.
func (v *validator) header(p path, h Header) {
	if !v.required(p.with("name"), "write the header's name") {
		return
	}
	if h.Name == "" || strings.ContainsFunc(h.Name, notToken) {
		v.report(p.with("name"), "%q is not a header name, use letters, digits and -", h.Name)
	}
	if strings.HasPrefix(strings.ToLower(h.Name), "x-cri-proxy-") {
		v.report(p.with("name"), "%q is one of the headers that cri-proxy sets itself, choose a different one", h.Name)
	}
	if strings.ContainsFunc(h.Value, isControl) {
		v.report(p.with("value"), "is %q, must hold no control characters", h.Value)
	}
}

// sleep refuses a hook that could only ever time out.
func (v *validator) sleep(p path, s SleepHook, timeout Duration) {
	seconds := p.with("sleep", "seconds")
	if !v.required(seconds, "write how long, at least 1") {
		return
	}
	if s.Seconds < 1 {
		v.report(seconds, "is %d, must be at least 1", s.Seconds)
	} else if !v.source.lost(p.with("timeout")) && timeout.Duration > 0 && float64(s.Seconds) >= timeout.Seconds() {
		v.report(seconds, "is %d, must be shorter than the hook's timeout, which is %s", s.Seconds, timeout)
	}
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

func notToken(c rune) bool {
	alphanumeric := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}
