package configs

// fill gives each backend, handler and hook of a decoded configuration its defaults, and brings endpoints and empty lists into
// one form. This cannot be done before the decoding, which makes these entries.
func (c *Config) fill(d *document) {
	normalise(&c.Server.Listen)
	normalise(&c.Admin.Listen)
	for name, b := range c.Backends {
		p, def := path{"backends", quoted(name)}, defaultBackend()
		setDefault(d, p.with("list_timeout"), &b.ListTimeout, def.ListTimeout)
		setDefault(d, p.with("when_down"), &b.WhenDown, def.WhenDown)
		normalise(&b.Endpoint)
		normalise(&b.ImageEndpoint)
		c.Backends[name] = b
	}
	for name, h := range c.Handlers {
		h.fill(d, path{"handlers", quoted(name)})
		c.Handlers[name] = h
	}
}

func (h *Handler) fill(d *document, p path) {
	def := defaultHandler()
	setDefault(d, p.with("images", "pull_policy"), &h.Images.PullPolicy, def.Images.PullPolicy)
	dropEmpty(&h.Images.AuthFiles)
	dropEmpty(&h.Images.Preload)
	dropEmpty(&h.Images.Allow)
	setDefault(d, p.with("service_env", "on_unavailable"), &h.ServiceEnv.OnUnavailable, def.ServiceEnv.OnUnavailable)
	dropEmpty(&h.ServiceEnv.Namespaces)
	hooks := p.with("hooks")
	setDefault(d, hooks.with("pod_pre_stop"), &h.Hooks.PodPreStop, def.Hooks.PodPreStop)
	dropEmpty(&h.Hooks.PostStart)
	for i := range h.Hooks.PostStart {
		h.Hooks.PostStart[i].fill(d, hooks.with("post_start", index(i)))
	}
	dropEmpty(&h.Hooks.PreStop)
	for i := range h.Hooks.PreStop {
		h.Hooks.PreStop[i].fill(d, hooks.with("pre_stop", index(i)))
	}
}

func (h *PostStartHook) fill(d *document, p path) {
	h.Hook.fill(d, p)
	setDefault(d, p.with("wait"), &h.Wait, true)
	setDefault(d, p.with("on_failure"), &h.OnFailure, OnFailureKill)
}

func (h *Hook) fill(d *document, p path) {
	def := defaultHook()
	setDefault(d, p.with("timeout"), &h.Timeout, def.Timeout)
	setDefault(d, p.with("attempts"), &h.Attempts, def.Attempts)
	setDefault(d, p.with("backoff"), &h.Backoff, def.Backoff)
	dropEmpty(&h.Match.Containers)
	dropEmpty(&h.Match.Namespaces)
	if len(h.Match.Labels) == 0 {
		h.Match.Labels = nil
	}
	if h.Exec != nil {
		dropEmpty(&h.Exec.Command)
	}
	if h.HTTPGet != nil {
		setDefault(d, p.with("http_get", "scheme"), &h.HTTPGet.Scheme, "http")
		setDefault(d, p.with("http_get", "path"), &h.HTTPGet.Path, "/")
		dropEmpty(&h.HTTPGet.Headers)
	}
}

// setDefault sets what the document does not; a zero that was written down stays.
func setDefault[T any](d *document, p path, value *T, def T) {
	if !d.has(p) {
		*value = def
	}
}

// normalise writes an endpoint as unix:///path. What is no endpoint stays as it is, for the validator to report.
func normalise(endpoint *string) {
	if socket, err := SocketPath(*endpoint); err == nil {
		*endpoint = "unix://" + socket
	}
}

// dropEmpty makes an empty list the same as none, so that equal configurations are equal values.
func dropEmpty[T any](list *[]T) {
	if len(*list) == 0 {
		*list = nil
	}
}
