package configs

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Dump writes the whole configuration, defaults included, as TOML from which Parse makes the same one.
func Dump(c *Config) ([]byte, error) {
	text, err := toml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write the configuration as TOML: %w", err)
	}
	return text, nil
}
