package configs

import (
	"cmp"
	"maps"
	"slices"
)

// socket is one place of a configuration that names a unix socket.
type socket struct {
	path     path
	endpoint string
	// own sockets are those that cri-proxy listens on.
	own bool
}

// sockets refuses two uses of one socket: two listeners, a backend that is cri-proxy itself, and one runtime under two names,
// whose pods would all be listed twice.
func (v *validator) sockets() {
	all := []socket{
		{path{"server", "listen"}, v.config.Server.Listen, true},
		{path{"admin", "listen"}, v.config.Admin.Listen, true},
	}
	backends := slices.SortedFunc(maps.Keys(v.config.Backends), func(a, b string) int {
		return cmp.Compare(v.source.places[path{"backends", quoted(a)}.String()], v.source.places[path{"backends", quoted(b)}.String()])
	})
	for _, name := range backends {
		b, p := v.config.Backends[name], path{"backends", quoted(name)}
		all = append(all, socket{p.with("endpoint"), b.Endpoint, false})
		if b.ImageEndpoint != b.Endpoint {
			all = append(all, socket{p.with("image_endpoint"), b.ImageEndpoint, false})
		}
	}
	for i, s := range all {
		for _, other := range all[:i] {
			if s.endpoint == other.endpoint && s.endpoint != "" && v.clash(s, other) {
				break
			}
		}
	}
}

// clash reports that s, which comes after other, uses the same socket; not if they may.
func (v *validator) clash(s, other socket) bool {
	switch image := "image_endpoint"; {
	case s.own:
		if !v.source.mentions(s.path) {
			s, other = other, s // The one that is a default has no place in the file.
		}
		v.report(s.path, "%s is already the socket of %s, each needs its own", s.endpoint, other.path)
	case other.own:
		v.report(s.path, "%s is the socket that cri-proxy itself listens on (%s), name the runtime's", s.endpoint, other.path)
	case s.path[2] == image || other.path[2] == image:
		return false
	default:
		v.report(s.path, "%s is already the socket of %s, a runtime can be only one backend", s.endpoint, other.path)
	}
	return true
}
