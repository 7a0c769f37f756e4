package configs

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// Each archive holds in.toml and what comes of it: want.toml or want.err.
// After an intended change run the test with -update and read the difference.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	update := flag.Lookup("update").Value.String() == "true"
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 0 || archive.Files[0].Name != "in.toml" {
				t.Fatal("the archive does not begin with in.toml")
			}
			got := &txtar.Archive{Comment: archive.Comment, Files: append(archive.Files[:1:1], outcome(t, archive.Files[0].Data)...)}
			if update {
				if err := os.WriteFile(file, txtar.Format(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" && !update {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// outcome returns the sections that an input leads to.
func outcome(t *testing.T, in []byte) []txtar.File {
	t.Helper()
	c, err := Parse("in.toml", in)
	if err != nil {
		checkPlaces(t, err, in)
		return []txtar.File{{Name: "want.err", Data: []byte(err.Error() + "\n")}}
	}
	text, err := Dump(c)
	if err != nil {
		t.Fatal(err)
	}
	return []txtar.File{{Name: "want.toml", Data: text}}
}

// checkPlaces checks what holds for every error of Parse: each problem has a place inside the file, and they are in file order.
func checkPlaces(t *testing.T, err error, in []byte) {
	t.Helper()
	found, ok := errors.AsType[Problems](err)
	if !ok || len(found) == 0 {
		t.Fatalf("not a list of problems: %v", err)
	}
	lines := strings.Split(string(in), "\n")
	for i, p := range found {
		place := fmt.Sprintf("in.toml:%d:%d: ", p.Line, p.Column)
		if !strings.HasPrefix(p.String(), place) || p.Text == "" {
			t.Errorf("%q does not begin with its place and end with a text", p)
		}
		if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > len(lines[p.Line-1])+1 {
			t.Errorf("%q is not inside the file", p)
		}
		if i > 0 && (p.Line < found[i-1].Line || p.Line == found[i-1].Line && p.Column < found[i-1].Column) {
			t.Errorf("%q stands after %q", p, found[i-1])
		}
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write what the archives in testdata lead to")
	os.Exit(m.Run())
}
