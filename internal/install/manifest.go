package install

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// manifest is what an installation changes, on disk before it changes anything.
type manifest struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Runtime string    `json:"runtime"` // The endpoint that the kubelet had.
	Config  string    `json:"config"`
	// Enabled tells that the units were enabled before.
	Enabled bool     `json:"enabled"`
	Files   []change `json:"files"` // The kubelet's last.
	Dirs    []string `json:"dirs"`  // Those that were made, the deepest first.
}

const manifestName = "manifest.json"

// dir is where the manifest and the backups are.
func (o Options) dir() string { return filepath.Join(o.StateDir, "install") }

// save writes the backups, and then the manifest that names them.
func (o Options) save(m *manifest) error {
	m.Dirs = append(m.Dirs, o.missing(o.dir())...)
	for _, c := range m.Files {
		m.Dirs = append(m.Dirs, o.missing(filepath.Dir(c.Path))...)
	}
	slices.SortFunc(m.Dirs, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	m.Dirs = slices.Compact(m.Dirs)
	if err := os.MkdirAll(o.path(o.dir()), 0o700); err != nil {
		return err
	}
	for i := range m.Files {
		c := &m.Files[i]
		if c.Made {
			continue
		}
		c.Backup = strconv.Itoa(i) + "-" + filepath.Base(c.Path)
		if err := writeFile(o.path(filepath.Join(o.dir(), c.Backup)), c.before, 0o600, -1, -1); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(o.path(filepath.Join(o.dir(), manifestName)), text, 0o600, -1, -1)
}

// load reads the manifest; nil if there is none.
func (o Options) load() (*manifest, error) {
	file := filepath.Join(o.dir(), manifestName)
	text, err := os.ReadFile(o.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // Nothing is installed.
	}
	if err != nil {
		return nil, fmt.Errorf("read what was installed: %w", err)
	}
	m := &manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: restore the files beside it by hand: %w", file, err)
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("%s is of version %d: uninstall with the cri-proxy that wrote it", file, m.Version)
	}
	for i := range m.Files {
		c := &m.Files[i]
		if c.Made {
			continue
		}
		if c.before, err = os.ReadFile(o.path(filepath.Join(o.dir(), c.Backup))); err != nil {
			return nil, fmt.Errorf("the backup of %s: %w", c.Path, err)
		}
		if digest(c.before) != c.Before {
			return nil, fmt.Errorf("the backup of %s, %s, is damaged: restore that file by hand and remove %s", c.Path, filepath.Join(o.dir(), c.Backup), o.dir())
		}
	}
	return m, nil
}

// forget removes the manifest first, so that a half of it is never taken for one,
// then the backups and the directories that were made and are empty.
func (o Options) forget(m *manifest) error {
	err := ignoreMissing(os.Remove(o.path(filepath.Join(o.dir(), manifestName))))
	for _, c := range m.Files {
		if c.Backup != "" {
			err = errors.Join(err, ignoreMissing(os.Remove(o.path(filepath.Join(o.dir(), c.Backup)))))
		}
	}
	for _, dir := range m.Dirs {
		// One that holds something by now, such as the proxy's state, stays.
		if entries, unreadable := os.ReadDir(o.path(dir)); unreadable == nil && len(entries) == 0 {
			err = errors.Join(err, os.Remove(o.path(dir)))
		}
	}
	return err
}
