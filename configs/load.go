package configs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load reads and checks the file at name. The error is a [Problems] with everything that is wrong, or why the file cannot be read.
func Load(name string) (*Config, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(name, data)
}

// Parse is [Load] for data that is at hand; name stands for the file in problems.
func Parse(name string, data []byte) (*Config, error) {
	d, syntax := parse(name, data)
	if syntax != nil {
		return nil, Problems{*syntax}
	}
	found := append(d.checkRedefinitions(), d.checkTypes()...)
	c := base()
	c.source = d
	if err := toml.Unmarshal(d.text, &c); err != nil {
		found = append(found, d.problem(0, "", err.Error()))
	}
	c.fill(d)
	v := validator{config: &c, source: d}
	v.validate()
	if found = append(found, v.found...); len(found) > 0 {
		return nil, found.InFileOrder()
	}
	return &c, nil
}

// AdminListen is the admin.listen of a file that [Load] may refuse, and the default's if that cannot be told: a daemon that
// runs on an earlier text of the file is asked there what is wrong with this one.
func AdminListen(name string) string {
	c := base()
	data, err := os.ReadFile(name)
	if err != nil || toml.Unmarshal(data, &struct{ Admin *Admin }{&c.Admin}) != nil || c.Admin.Listen == "" {
		return Default().Admin.Listen
	}
	return c.Admin.Listen
}

// checkRedefinitions reports keys and tables that are defined twice. go-toml stops at the first one, so that is cut out and the
// rest decoded again; a target without fields makes this all that it can find.
func (d *document) checkRedefinitions() Problems {
	var found Problems
	for {
		var nothing struct{}
		located, ok := errors.AsType[*toml.DecodeError](toml.Unmarshal(d.text, &nothing))
		if !ok {
			return found
		}
		offset := d.offset(located.Position())
		n, ok := d.expressionAt(offset)
		why := strings.TrimPrefix(located.Error(), "toml: ")
		found = append(found, d.problem(offset, n.path.String(), "is defined a second time ("+why+"), write it once"))
		if !ok {
			return found
		}
		d.cutOut(n)
	}
}
