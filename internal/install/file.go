package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// change is one file, as it was and as it is to be.
type change struct {
	Path   string      `json:"path"` // On the node.
	Made   bool        `json:"made"` // It was not there.
	Mode   fs.FileMode `json:"mode"`
	UID    int         `json:"uid"`
	GID    int         `json:"gid"`
	Before string      `json:"before,omitempty"` // The digest of what it was.
	After  string      `json:"after"`
	// Backup is the copy's name beside the manifest.
	Backup string `json:"backup,omitempty"`

	before, after []byte
}

// newFile is a change that makes a file.
func newFile(path string, text []byte) change {
	return change{Path: path, Made: true, Mode: 0o644, UID: -1, GID: -1, After: digest(text), after: text}
}

// edited is a change of a file that is there.
func (o Options) edited(path string, before, after []byte) (change, error) {
	info, err := os.Stat(o.path(path))
	if err != nil {
		return change{}, err
	}
	c := change{Path: path, Mode: info.Mode().Perm(), UID: -1, GID: -1, Before: digest(before), After: digest(after), before: before, after: after}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		c.UID, c.GID = int(s.Uid), int(s.Gid)
	}
	return c, nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// untouched says whether the file is as this program left it, or as it was before.
func (o Options) untouched(c change) (bool, error) {
	text, err := os.ReadFile(o.path(c.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return c.Made, nil
	}
	if err != nil {
		return false, err
	}
	now := digest(text)
	return now == c.After || (!c.Made && now == c.Before), nil
}

// write puts text in the place of a file at once, and on the disk.
func (o Options) write(c change, text []byte) error {
	path, err := o.target(c)
	if err != nil {
		return err
	}
	return writeFile(path, text, c.Mode, c.UID, c.GID)
}

// target is the file itself, behind links.
func (o Options) target(c change) (string, error) {
	path, err := filepath.EvalSymlinks(o.path(c.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return o.path(c.Path), nil
	}
	return path, err
}

// halfOf begins the name under which a file is written, before it is renamed.
func halfOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".cri-proxy-")
}

func writeFile(path string, text []byte, mode fs.FileMode, uid, gid int) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(halfOf(path)))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreMissing(os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Chown(uid, gid), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// missing returns the directories that are not there, from dir upwards.
func (o Options) missing(dir string) (dirs []string) {
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Stat(o.path(dir)); err == nil {
			break
		}
		dirs = append(dirs, dir)
	}
	return dirs
}
