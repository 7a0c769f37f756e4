package configs

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// validator looks for what is wrong in values that could be decoded.
type validator struct {
	config *Config
	source *document
	found  Problems
}

func (v *validator) validate() {
	c := v.config
	if v.required(path{"version"}, "write version = 1") && c.Version != 1 {
		v.report(path{"version"}, "is %d, must be 1", c.Version)
	}
	if v.required(path{"default_handler"}, "name "+v.oneOfThe("handlers")) {
		v.reference(path{"default_handler"}, c.DefaultHandler, "handlers")
	}
	v.server()
	v.oneOf(path{"log", "level"}, c.Log.Level, "trace", "debug", "info", "warn", "error")
	v.oneOf(path{"log", "format"}, c.Log.Format, LogText, LogJSON)
	v.hostPort(path{"tracing", "endpoint"}, c.Tracing.Endpoint, 1)
	v.absolute(path{"kubernetes", "kubeconfig"}, c.Kubernetes.Kubeconfig)
	v.absolute(path{"service_env", "services_file"}, c.ServiceEnv.ServicesFile)
	v.backends()
	v.handlers()
	v.sockets()
}

func (v *validator) server() {
	c := v.config
	v.endpoint(path{"server", "listen"}, c.Server.Listen)
	v.positive(path{"server", "shutdown_timeout"}, c.Server.ShutdownTimeout)
	if c.State.Dir == "" {
		v.report(path{"state", "dir"}, "is empty, must be an absolute path")
	}
	v.absolute(path{"state", "dir"}, c.State.Dir)
	v.endpoint(path{"admin", "listen"}, c.Admin.Listen)
	v.hostPort(path{"admin", "metrics_listen"}, c.Admin.MetricsListen, 0)
}

func (v *validator) backends() {
	top := path{"backends"}
	if !v.source.mentionsBelow(top) {
		v.report(top, "there is none, write at least one [backends.<name>] with its endpoint")
	}
	for _, name := range slices.Sorted(maps.Keys(v.config.Backends)) {
		b, p := v.config.Backends[name], top.with(quoted(name))
		v.label(p, name)
		if v.required(p.with("endpoint"), "write the runtime's unix socket") {
			v.endpoint(p.with("endpoint"), b.Endpoint)
		}
		if b.ImageEndpoint != "" {
			v.endpoint(p.with("image_endpoint"), b.ImageEndpoint)
		}
		v.positive(p.with("list_timeout"), b.ListTimeout)
		v.oneOf(p.with("when_down"), b.WhenDown, WhenDownLastKnown, WhenDownFail)
		if b.LastKnownTTL.Duration < 0 {
			v.report(p.with("last_known_ttl"), "is %s, must not be negative (0s keeps the answer as long as the process lives)", b.LastKnownTTL)
		}
	}
}

func (v *validator) handlers() {
	top := path{"handlers"}
	if !v.source.mentionsBelow(top) {
		v.report(top, "there is none, write at least one [handlers.<name>] with its backend")
	}
	for _, name := range slices.Sorted(maps.Keys(v.config.Handlers)) {
		h, p := v.config.Handlers[name], top.with(quoted(name))
		v.label(p, name)
		if v.required(p.with("backend"), "name "+v.oneOfThe("backends")) {
			v.reference(p.with("backend"), h.Backend, "backends")
		}
		v.images(p.with("images"), h.Images)
		v.hooks(p.with("hooks"), h.Hooks)
		v.serviceEnv(p.with("service_env"), h.ServiceEnv)
	}
}

func (v *validator) serviceEnv(p path, e HandlerServiceEnv) {
	if e.Enabled && !v.hasServices() {
		v.report(p.with("enabled"), "needs Services, but neither kubernetes.kubeconfig nor service_env.services_file is set; set one of them")
	}
	v.oneOf(p.with("on_unavailable"), e.OnUnavailable, UnavailableFail, UnavailableSkip)
	for i, namespace := range e.Namespaces {
		v.label(p.with("namespaces", index(i)), namespace)
	}
}

// hasServices tells whether a source of Services is meant, be it with a value that cannot be decoded.
func (v *validator) hasServices() bool {
	return v.config.Kubernetes.Kubeconfig != "" || v.source.lost(path{"kubernetes", "kubeconfig"}) ||
		v.config.ServiceEnv.ServicesFile != "" || v.source.lost(path{"service_env", "services_file"})
}

func (v *validator) images(p path, i Images) {
	v.oneOf(p.with("pull_policy"), i.PullPolicy, PullAsRequested, PullAlways, PullNever)
	if i.MaxParallelPulls < 0 {
		v.report(p.with("max_parallel_pulls"), "is %d, must not be negative (0 is no limit)", i.MaxParallelPulls)
	}
	for n, file := range i.AuthFiles {
		v.notEmpty(p.with("auth_files", index(n)), file)
		v.absolute(p.with("auth_files", index(n)), file)
	}
	v.absolute(p.with("credential_providers"), i.CredentialProviders)
	v.absolute(p.with("credential_provider_bin_dir"), i.CredentialProviderBinDir)
	if i.CredentialProviders != "" && i.CredentialProviderBinDir == "" {
		v.report(p.with("credential_provider_bin_dir"), "is empty, must name the directory of the plugins that credential_providers uses")
	}
	for n, ref := range i.Preload {
		v.notEmpty(p.with("preload", index(n)), ref)
	}
	for n, pattern := range i.Allow {
		v.pattern(p.with("allow", index(n)), pattern)
	}
	if i.PullPolicy == PullAlways {
		v.always(p, i)
	}
}

// always refuses what would let a container start without credentials of its own, which is what the policy is there to prevent.
func (v *validator) always(p path, i Images) {
	const why = `proves nothing about the pod's own credentials and cannot stand together with pull_policy = "always"; remove one of them`
	if len(i.AuthFiles) > 0 {
		v.report(p.with("auth_files"), why)
	}
	if i.CredentialProviders != "" {
		v.report(p.with("credential_providers"), why)
	}
	if len(i.Preload) > 0 {
		v.report(p.with("preload"), why)
	}
}

// report adds a problem, unless the value was already reported as one that cannot be decoded.
func (v *validator) report(p path, format string, args ...any) {
	if !v.source.lost(p) {
		v.found = append(v.found, v.source.at(p, fmt.Sprintf(format, args...)))
	}
}

// required reports a key that is missing, and tells whether it is there.
func (v *validator) required(p path, what string) bool {
	if v.source.mentions(p) {
		return true
	}
	v.report(p, "is missing, %s", what)
	return false
}

func (v *validator) oneOf(p path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.report(p, "is %q, must be one of: %s", value, strings.Join(allowed, ", "))
	}
}

func (v *validator) positive(p path, d Duration) {
	if d.Duration <= 0 {
		v.report(p, "is %s, must be more than 0s", d)
	}
}

func (v *validator) notEmpty(p path, value string) {
	if value == "" {
		v.report(p, "is empty, write a value or remove it")
	}
}

// absolute reports a file name that would depend on where the daemon was started. "" is for the caller to judge.
func (v *validator) absolute(p path, file string) {
	if file != "" && !filepath.IsAbs(file) {
		v.report(p, "is %q, must be an absolute path", file)
	}
}

func (v *validator) endpoint(p path, endpoint string) {
	if _, err := SocketPath(endpoint); err != nil {
		v.report(p, "%s", err)
	}
}

func (v *validator) hostPort(p path, value string, lowest int) {
	if value == "" {
		return
	}
	host, port, err := net.SplitHostPort(value)
	n, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || int(n) < lowest || strings.ContainsAny(host, "/ ") || lowest > 0 && host == "" {
		v.report(p, "is %q, must be host:port with a port from %d to 65535", value, lowest)
	}
}

// label checks a name by the rule that Kubernetes has for handlers of a RuntimeClass and for namespaces: an RFC 1123 label.
func (v *validator) label(p path, name string) {
	alphanumeric := func(c rune) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }
	inner := func(c rune) bool { return alphanumeric(c) || c == '-' }
	if name == "" || len(name) > 63 || strings.TrimFunc(name, inner) != "" || name[0] == '-' || name[len(name)-1] == '-' {
		v.report(p, "%q is not a valid name, use up to 63 lower-case letters, digits and -, with a letter or digit at both ends", name)
	}
}

// reference checks that a name stands for a table in a section, be that table right or wrong.
func (v *validator) reference(p path, name, section string) {
	if !v.source.mentions(path{section, quoted(name)}) {
		v.report(p, "%q is not there, name %s", name, v.oneOfThe(section))
	}
}

// oneOfThe says in a message which names a section has.
func (v *validator) oneOfThe(section string) string {
	names := map[string]bool{}
	for _, n := range v.source.nodes {
		if len(n.path) > 1 && n.path[0] == section {
			names[n.path[1]] = true
		}
	}
	text := "one of [" + section + ".*]"
	if len(names) > 0 {
		text += ": " + strings.Join(slices.Sorted(maps.Keys(names)), ", ")
	}
	return text
}
