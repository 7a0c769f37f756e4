package configs

// NeedsRestart returns the keys, in file order, in which c differs from before and that a running daemon cannot take over.
func (c *Config) NeedsRestart(before *Config) Problems {
	var found Problems
	for _, key := range []struct {
		table, key string
		now, next  any
	}{
		{"server", "listen", before.Server.Listen, c.Server.Listen},
		{"server", "socket_mode", before.Server.SocketMode, c.Server.SocketMode},
		{"state", "dir", before.State.Dir, c.State.Dir},
		{"admin", "listen", before.Admin.Listen, c.Admin.Listen},
		{"admin", "metrics_listen", before.Admin.MetricsListen, c.Admin.MetricsListen},
		{"tracing", "endpoint", before.Tracing.Endpoint, c.Tracing.Endpoint},
		{"kubernetes", "kubeconfig", before.Kubernetes.Kubeconfig, c.Kubernetes.Kubeconfig},
		{"service_env", "services_file", before.ServiceEnv.ServicesFile, c.ServiceEnv.ServicesFile},
	} {
		if key.now != key.next {
			found = append(found, c.Problem("has changed, and only a restart takes that over: restart cri-proxy, or set it back", key.table, key.key))
		}
	}
	return found.InFileOrder()
}

// Problem returns what is wrong with a key, at its place in the file.
func (c *Config) Problem(text string, key ...string) Problem {
	d := c.source
	if d == nil {
		d = &document{}
	}
	var p path
	for _, part := range key {
		p = append(p, quoted(part))
	}
	return d.at(p, text)
}
