package critest

import (
	"archive/tar"
	"bytes"
	"os"
	"path"
)

// layer is a tar file in the making. The first error stays and comes out of
// bytes.
type layer struct {
	packed  bytes.Buffer
	archive *tar.Writer
	folders map[string]bool
	err     error
}

func newLayer() *layer {
	l := &layer{folders: map[string]bool{".": true}}
	l.archive = tar.NewWriter(&l.packed)
	return l
}

// folder adds a folder with those above it. The mode is that of the last.
func (l *layer) folder(name string, mode int64) {
	if l.folders[name] {
		return
	}
	l.folders[name] = true
	l.folder(path.Dir(name), 0o755)
	l.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (l *layer) file(name string, mode int64, content []byte) {
	l.folder(path.Dir(name), 0o755)
	l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

// copy adds a program of the machine.
func (l *layer) copy(name string, mode int64, from string) {
	content, err := os.ReadFile(from)
	if err != nil && l.err == nil {
		l.err = err
	}
	l.file(name, mode, content)
}

// link adds another name of a file that is there.
func (l *layer) link(name, target string) {
	l.folder(path.Dir(name), 0o755)
	l.add(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o755}, nil)
}

func (l *layer) add(header *tar.Header, content []byte) {
	if l.err == nil {
		l.err = l.archive.WriteHeader(header)
	}
	if l.err == nil && len(content) > 0 {
		_, l.err = l.archive.Write(content)
	}
}

// bytes ends the tar file.
func (l *layer) bytes() ([]byte, error) {
	if l.err == nil {
		l.err = l.archive.Close()
	}
	return l.packed.Bytes(), l.err
}
