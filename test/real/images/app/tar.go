package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive is what `kubectl cp` needs of tar: `cf - FILE`, and `-xmf - -C FOLDER`,
// for plain files alone.
func archive(args []string) int {
	switch {
	case len(args) == 3 && args[0] == "cf" && args[1] == "-":
		return end(packFile(os.Stdout, args[2]))
	case len(args) == 4 && args[0] == "-xmf" && args[1] == "-" && args[2] == "-C":
		return end(unpack(os.Stdin, args[3]))
	}
	return fail(fmt.Errorf("tar: want cf - FILE, or -xmf - -C FOLDER, got %q", args))
}

func end(err error) int {
	if err != nil {
		return fail(err)
	}
	return 0
}

func packFile(w io.Writer, name string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	packed := tar.NewWriter(w)
	// As any tar, it leaves out the slash at the beginning; kubectl insists.
	header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: 0o644, Size: int64(len(content))}
	if err := packed.WriteHeader(header); err != nil {
		return err
	}
	if _, err := packed.Write(content); err != nil {
		return err
	}
	return packed.Close()
}

func unpack(r io.Reader, folder string) error {
	packed := tar.NewReader(r)
	for {
		header, err := packed.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(packed)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, path.Clean("/"+header.Name)), content, 0o644); err != nil {
			return err
		}
	}
}
