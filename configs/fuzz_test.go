package configs

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/txtar"
)

// Whatever Parse refuses it refuses with places. Whatever it takes, go-toml's strict mode takes too, and it survives Dump.
func FuzzParse(f *testing.F) {
	f.Add(DefaultTOML())
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("in.toml", data)
		if err != nil {
			checkPlaces(t, err, data)
			return
		}
		if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&Config{}); err != nil {
			t.Fatalf("go-toml refuses what was taken: %v", err)
		}
		text, err := Dump(c)
		if err != nil {
			t.Fatal(err)
		}
		again := mustParse(t, string(text))
		if !again.Equal(c) {
			t.Fatalf("-parsed +parsed from the dump:\n%s", diff(c, again))
		}
	})
}
