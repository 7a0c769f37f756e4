package nfpm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// packed is the one file of its kind that "make dist" made.
func packed(t *testing.T, pattern string) string {
	t.Helper()
	dist := os.Getenv("DIST")
	if dist == "" {
		t.Skip(`LEFT OUT: there is nothing to test; "make dist" makes it and runs this`)
	}
	files, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s has the files %q, want one %s (%v)", dist, files, pattern, err)
	}
	return files[0]
}

// arch is what a program was built for.
func arch(t *testing.T, program string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range info.Settings {
		if setting.Key == "GOARCH" {
			return setting.Value
		}
	}
	t.Fatalf("%s does not tell what it was built for", program)
	return ""
}

func native(t *testing.T, program string) bool {
	t.Helper()
	return arch(t, program) == runtime.GOARCH
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("LEFT OUT: this needs %s, which is not here", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// TestSameTree: both packages bring the same, but for the place of zsh's completion.
func TestSameTree(t *testing.T) {
	t.Parallel()
	inDeb, inRPM := map[string]string{}, map[string]string{}
	for _, entry := range untar(t, strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", packed(t, "*.deb")))) {
		name := strings.TrimPrefix(entry.Name, ".")
		mode, digest := entry.Mode|0o100000, fmt.Sprintf("%x", sha256.Sum256(entry.body))
		if entry.Typeflag == tar.TypeDir {
			continue // dpkg's has all of them, rpm's those that are its own; TestDist sees both.
		}
		name = strings.Replace(name, "zsh/vendor-completions", "zsh/site-functions", 1)
		inDeb[name] = fmt.Sprintf("%o %s %s %d %s", mode, entry.Uname, entry.Gname, entry.ModTime.Unix(), digest)
	}
	format := `[%{FILENAMES}|%{FILEMODES:octal} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEMTIMES} %{FILEDIGESTS}\n]`
	for line := range strings.Lines(output(t, "rpm", "--dbpath="+t.TempDir(), "-qp", "--queryformat", format, packed(t, "*.rpm"))) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), "|"); !strings.HasPrefix(rest, "40755 root root ") {
			inRPM[name] = rest
		}
	}
	both := maps.Clone(inDeb)
	maps.Copy(both, inRPM)
	for name := range both {
		if inDeb[name] != inRPM[name] {
			t.Errorf("%s: the .deb has %q, the .rpm %q", name, inDeb[name], inRPM[name])
		}
	}
	if len(both) < 20 {
		t.Errorf("there are too few: %q", both)
	}
}

// TestArchitecture: packages say what their program was built for.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	goarch := arch(t, filepath.Join(filepath.Dir(packed(t, "SHA256SUMS")), "../cri-proxy"))
	names := map[string][2]string{"amd64": {"amd64", "x86_64"}, "arm64": {"arm64", "aarch64"}}[goarch]
	t.Run("deb", func(t *testing.T) {
		t.Parallel()
		if got := output(t, "dpkg-deb", "-f", packed(t, "*_"+names[0]+".deb"), "Architecture"); got != names[0]+"\n" {
			t.Errorf("a program for %s is in a package for %s", goarch, got)
		}
	})
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		if got := output(t, "rpm", "--dbpath="+t.TempDir(), "-qp", "--queryformat", "%{ARCH} %{BUILDHOST}", packed(t, "*."+names[1]+".rpm")); got != names[1]+" localhost" {
			t.Errorf("a program for %s is in a package for, and from, %s", goarch, got)
		}
	})
	packed(t, "*_linux_"+goarch+".tar.gz")
	packed(t, "*_linux_"+goarch+".cdx.json")
}

// TestChecksums: what is in the directory is what the list says, and nothing else.
func TestChecksums(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(packed(t, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	files, err := filepath.Glob(filepath.Join(filepath.Dir(packed(t, "SHA256SUMS")), "*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("there are %q, want four and the list (%v)", files, err)
	}
	slices.Sort(files)
	for _, file := range files {
		if filepath.Base(file) == "SHA256SUMS" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(content), filepath.Base(file))
	}
	if string(text) != want.String() {
		t.Errorf("the list is\n%swant\n%s", text, want.String())
	}
}

// TestArchive: the archive has the program and what it needs, as the repository has
// it, and tells nothing of who packed it.
func TestArchive(t *testing.T) {
	t.Parallel()
	file := packed(t, "*.tar.gz")
	packedFile, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer packedFile.Close()
	stream, err := gzip.NewReader(packedFile)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range untar(t, stream) {
		names = append(names, entry.Name)
		want := map[bool]int64{true: 0o755, false: 0o644}[entry.Name == "cri-proxy" || entry.Typeflag == tar.TypeDir]
		if entry.Mode != want || entry.Uid != 0 || entry.Gid != 0 || entry.Uname+entry.Gname != "" || entry.ModTime.Unix() != epoch {
			t.Errorf("%s is %+v", entry.Name, entry.Header)
		}
		if entry.Typeflag == tar.TypeDir {
			continue
		}
		source := filepath.Join(repository, entry.Name)
		if entry.Name == "cri-proxy" {
			source = filepath.Join(filepath.Dir(file), "../cri-proxy")
		}
		if text, err := os.ReadFile(source); err != nil || !bytes.Equal(text, entry.body) {
			t.Errorf("%s is not the repository's (%v)", entry.Name, err)
		}
	}
	want := []string{"LICENSE", "README.md", "configs/config.toml", "configs/systemd/", "configs/systemd/cri-proxy.service", "configs/systemd/cri-proxy.socket", "cri-proxy"}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("the archive has %q, want %q", names, want)
	}
}

type entry struct {
	*tar.Header
	body []byte
}

func untar(t *testing.T, stream io.Reader) (entries []entry) {
	t.Helper()
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{header, body})
	}
}
