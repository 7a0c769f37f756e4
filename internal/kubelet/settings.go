package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// The files of a kubeadm node, and DefaultEndpoint is where the kubelet looks if
// none of them says.
const (
	ConfigFile         = "/var/lib/kubelet/config.yaml"
	InstanceConfigFile = "/var/lib/kubelet/instance-config.yaml" // kubeadm puts it over ConfigFile when it upgrades.
	DefaultEndpoint    = "unix:///run/containerd/containerd.sock"
)

// FlagFiles are the environment files whose flags kubeadm's unit hands to the
// kubelet, those that win last.
func FlagFiles() []string {
	return []string{"/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"}
}

// Value is one setting and the place it comes from; "" is not set.
type Value struct{ Text, From string }

// Settings are what the kubelet of a node is told, or was when it was started.
type Settings struct {
	PID           int    // 0: no kubelet is running, or it cannot be seen.
	ConfigFile    string // Of the running kubelet, else [ConfigFile].
	DropIns       []string
	Endpoint      Value
	ImageEndpoint Value
	CgroupDriver  Value
	// Found tells whether there is any sign of a kubelet on the node.
	Found bool
}

// configuration are the keys of a KubeletConfiguration that are about the runtime.
type configuration struct {
	Endpoint      string `json:"containerRuntimeEndpoint"`
	ImageEndpoint string `json:"imageServiceEndpoint"`
	CgroupDriver  string `json:"cgroupDriver"`
}

// Read returns the settings of the node whose files are below root. Files that are
// not there are no error; the error names those that cannot be read, and the
// settings are what the rest says.
func Read(root string) (Settings, error) {
	p, err := findProcess(root)
	s := Settings{PID: p.pid, ConfigFile: ConfigFile, Found: p.pid != 0}
	if file := p.flag("config"); file != "" {
		s.ConfigFile = file
	}
	errs := []error{err, s.readConfig(root, s.ConfigFile)}
	if dir := p.flag("config-dir"); dir != "" {
		s.DropIns, err = dropIns(root, dir)
		errs = append(errs, err)
		for _, file := range s.DropIns {
			errs = append(errs, s.readConfig(root, file))
		}
	}
	if p.pid != 0 {
		s.takeFlags(p.args, fmt.Sprintf("the command line of process %d", p.pid))
		return s, errors.Join(errs...)
	}
	for _, file := range FlagFiles() {
		errs = append(errs, s.readFlags(root, file))
	}
	return s, errors.Join(errs...)
}

func (s *Settings) readConfig(root, file string) error {
	text, err := os.ReadFile(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the kubelet's configuration: %w", err)
	}
	s.Found = true
	var c configuration
	if err := yaml.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("the kubelet's configuration %s: %w", file, err)
	}
	set(&s.Endpoint, c.Endpoint, file)
	set(&s.ImageEndpoint, c.ImageEndpoint, file)
	set(&s.CgroupDriver, c.CgroupDriver, file)
	return nil
}

func (s *Settings) readFlags(root, file string) error {
	text, err := os.ReadFile(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the kubelet's flags: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if _, args, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			s.takeFlags(strings.Fields(strings.Trim(args, `"'`)), file)
		}
	}
	return nil
}

func (s *Settings) takeFlags(args []string, from string) {
	set(&s.Endpoint, flag(args, runtimeFlag), from)
	set(&s.ImageEndpoint, flag(args, imageFlag), from)
	set(&s.CgroupDriver, flag(args, "cgroup-driver"), from)
}

func set(v *Value, text, from string) {
	if text != "" {
		*v = Value{Text: text, From: from}
	}
}

// flag returns the value of a flag, the last one if it is there twice.
func flag(args []string, name string) (value string) {
	for i, arg := range args {
		switch {
		case strings.HasPrefix(arg, "--"+name+"="):
			value = strings.TrimPrefix(arg, "--"+name+"=")
		case arg == "--"+name && i+1 < len(args):
			value = args[i+1]
		}
	}
	return value
}

// dropIns lists what the kubelet merges over its configuration, in its order.
func dropIns(root, dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) == ".conf" {
			found = append(found, filepath.Join("/", strings.TrimPrefix(path, filepath.Clean(root))))
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	slices.Sort(found)
	return found, err
}
