package critest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
)

func TestLayer(t *testing.T) {
	t.Parallel()
	l := newLayer()
	l.file("bin/busybox", 0o755, []byte("program"))
	l.link("usr/bin/id", "bin/busybox")
	l.folder("tmp", 0o1777)
	content, err := l.bytes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	archive := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%c %s %o", header.Typeflag, header.Name, header.Mode))
	}
	want := []string{"5 bin/ 755", "0 bin/busybox 755", "5 usr/ 755", "5 usr/bin/ 755", "1 usr/bin/id 755", "5 tmp/ 1777"}
	if !slices.Equal(got, want) {
		t.Errorf("got the entries %q, want %q", got, want)
	}
}

func TestLayerKeepsItsFirstError(t *testing.T) {
	t.Parallel()
	l := newLayer()
	l.copy("bin/none", 0o755, filepath.Join(t.TempDir(), "none"))
	l.file("etc/passwd", 0o644, nil)
	if _, err := l.bytes(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the program is missing", err)
	}
}
