package configs

// unbuilt is a key whose feature this version does not have, and whether it asks for something.
type unbuilt struct {
	key  path
	used bool
}

// unbuiltKeys lists what is missing. A row goes away with the change that builds its feature.
func (c *Config) unbuiltKeys() []unbuilt {
	return []unbuilt{
		{path{"tracing", "endpoint"}, c.Tracing.Endpoint != ""},
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
	for _, row := range c.unbuiltKeys() {
		if row.used {
			found = append(found, d.at(row.key, "not supported by this version yet, remove it"))
		}
	}
	return found.InFileOrder()
}
