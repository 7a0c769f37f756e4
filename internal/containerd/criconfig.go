package containerd

import (
	"encoding/json"
	"maps"
	"slices"
)

// CRIConfig is what containerd tells of its CRI plugin's configuration in a
// verbose Status, in all versions since 1.4.
type CRIConfig struct {
	RootDir    string `json:"containerdRootDir"`
	Containerd struct {
		DefaultRuntimeName string         `json:"defaultRuntimeName"`
		Runtimes           map[string]any `json:"runtimes"`
	} `json:"containerd"`
	CNI struct {
		ConfDir      string `json:"confDir"`
		ConfTemplate string `json:"confTemplate"`
	} `json:"cni"`
}

// ParseCRIConfig reads the info of a verbose Status; nil is a runtime that does not
// tell, or that is no containerd.
func ParseCRIConfig(info map[string]string) *CRIConfig {
	c := &CRIConfig{}
	if err := json.Unmarshal([]byte(info["config"]), c); err != nil || len(c.Containerd.Runtimes) == 0 {
		return nil
	}
	return c
}

// Runtimes returns the names of its runtimes, sorted; nil for nil.
func (c *CRIConfig) Runtimes() []string {
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Containerd.Runtimes))
}
