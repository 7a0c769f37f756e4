package critest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// sources are those of Debian 12, whatever this machine runs.
const sources = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
`

// debian is an apt of its own in a scratch folder. To it nothing is installed,
// so that it fetches every library; to the machine it is a client that only
// downloads.
type debian struct {
	dir string
}

// newDebian prepares apt and learns what packages there are.
func newDebian(ctx context.Context, dir string) (debian, error) {
	d := debian{dir: dir}
	var problems []error
	for _, folder := range []string{"state/lists/partial", "cache/archives/partial", "source", "tree"} {
		problems = append(problems, os.MkdirAll(filepath.Join(dir, folder), 0o755))
	}
	config := fmt.Sprintf(`Dir::State "%[1]s/state";
Dir::State::status "/dev/null";
Dir::Cache "%[1]s/cache";
Dir::Etc::SourceList "%[1]s/sources.list";
Dir::Etc::SourceParts "-";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`, dir)
	problems = append(problems,
		os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644),
		os.WriteFile(d.config(), []byte(config), 0o644))
	if err := errors.Join(problems...); err != nil {
		return debian{}, err
	}
	return d, d.run(ctx, "apt-get", "--quiet", "update")
}

func (d debian) config() string { return filepath.Join(d.dir, "apt.conf") }

// tree is the folder that packages are unpacked in.
func (d debian) tree() string { return filepath.Join(d.dir, "tree") }

// run runs a program in the folder for sources.
func (d debian) run(ctx context.Context, program string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Dir = filepath.Join(d.dir, "source")
	cmd.Env = append(os.Environ(), "APT_CONFIG="+d.config(), "DEBIAN_FRONTEND=noninteractive")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}

// source unpacks a source package and returns its folder.
func (d debian) source(ctx context.Context, name string) (string, error) {
	if err := d.run(ctx, "apt-get", "--quiet", "source", name); err != nil {
		return "", err
	}
	folders, err := filepath.Glob(filepath.Join(d.dir, "source", name+"-*"))
	if err != nil {
		return "", err
	}
	if len(folders) != 1 {
		return "", fmt.Errorf("the source package of %s left the folders %q, want one", name, folders)
	}
	return folders[0], nil
}

// unpack unpacks packages with all that they depend on into the tree, and runs
// nothing of them.
func (d debian) unpack(ctx context.Context, names ...string) error {
	arguments := append([]string{"--quiet", "--yes", "--download-only", "install"}, names...)
	if err := d.run(ctx, "apt-get", arguments...); err != nil {
		return err
	}
	archives, err := d.archives()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := d.run(ctx, "dpkg-deb", "--extract", archive, d.tree()); err != nil {
			return err
		}
	}
	return nil
}

func (d debian) archives() ([]string, error) {
	return filepath.Glob(filepath.Join(d.dir, "cache", "archives", "*.deb"))
}

// version is that of a package that was fetched.
func (d debian) version(name string) (string, error) {
	archives, err := d.archives()
	if err != nil {
		return "", err
	}
	for _, archive := range archives {
		if parts := strings.Split(filepath.Base(archive), "_"); parts[0] == name && len(parts) == 3 {
			return strings.ReplaceAll(parts[1], "%3a", ":"), nil
		}
	}
	return "", fmt.Errorf("no package %s was fetched", name)
}

// libraries are the shared libraries that programs of the tree need, and those
// need in turn, with the loader: the name in an image to the file.
func (d debian) libraries(programs ...string) (map[string]string, error) {
	found := map[string]string{}
	for missing := slices.Clone(programs); len(missing) > 0; missing = missing[1:] {
		needed, err := needs(missing[0])
		if err != nil {
			return nil, err
		}
		for _, name := range needed {
			if _, ok := found[name]; ok {
				continue
			}
			if found[name], err = d.library(filepath.Base(name)); err != nil {
				return nil, err
			}
			missing = append(missing, found[name])
		}
	}
	return found, nil
}

// library finds the file of a library. Debian keeps them in a folder for the
// architecture, below /lib or /usr/lib.
func (d debian) library(name string) (string, error) {
	for _, folder := range []string{"lib", "usr/lib"} {
		files, err := filepath.Glob(filepath.Join(d.tree(), folder, "*-linux-gnu*", name))
		if err == nil && len(files) == 1 {
			return filepath.EvalSymlinks(files[0])
		}
	}
	return "", fmt.Errorf("the library %s is in no package that was fetched", name)
}

// needs are the libraries and the loader that a program names itself, as paths
// without the first slash.
func needs(program string) (names []string, err error) {
	file, err := elf.Open(program)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, library := range libraries {
		names = append(names, "lib/"+library)
	}
	if interpreter := file.Section(".interp"); interpreter != nil {
		path, err := interpreter.Data()
		if err != nil {
			return nil, err
		}
		names = append(names, strings.Trim(string(path), "/\x00"))
	}
	return names, nil
}
