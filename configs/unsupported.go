package configs

import (
	"maps"
	"slices"
)

// unbuilt is a key whose feature this version does not have, and whether it asks for something.
type unbuilt struct {
	key  path
	used bool
}

// unbuiltKeys lists what is missing outside of handlers. A row goes away with the change that builds its feature.
func (c *Config) unbuiltKeys() []unbuilt {
	return []unbuilt{
		{path{"tracing", "endpoint"}, c.Tracing.Endpoint != ""},
		{path{"kubernetes", "kubeconfig"}, c.Kubernetes.Kubeconfig != ""},
		{path{"service_env", "services_file"}, c.ServiceEnv.ServicesFile != ""},
	}
}

// unbuiltKeys lists what is missing in one handler.
func (h Handler) unbuiltKeys() []unbuilt {
	e, def := h.ServiceEnv, defaultHandler().ServiceEnv
	return []unbuilt{
		{path{"service_env", "enabled"}, e.Enabled},
		{path{"service_env", "namespaces"}, len(e.Namespaces) > 0},
		{path{"service_env", "on_unavailable"}, e.OnUnavailable != def.OnUnavailable},
	}
}

// Unsupported returns the keys, in file order, that ask for something this version cannot do. A daemon must not start with them:
// nobody should rely on what never happens.
func (c *Config) Unsupported() []Problem {
	d := c.source
	if d == nil {
		d = &document{}
	}
	var found Problems
	add := func(prefix path, rows []unbuilt) {
		for _, row := range rows {
			if row.used {
				found = append(found, d.at(prefix.with(row.key...), "not supported by this version yet, remove it"))
			}
		}
	}
	add(nil, c.unbuiltKeys())
	for _, name := range slices.Sorted(maps.Keys(c.Handlers)) {
		add(path{"handlers", quoted(name)}, c.Handlers[name].unbuiltKeys())
	}
	return found.inFileOrder()
}
