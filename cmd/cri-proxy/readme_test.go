package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/configs"
)

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the README's code blocks of one language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var all []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("the README has no %s block", language)
	}
	return all
}

// TestReadmeConfiguration: what the README tells users to write is valid and
// can be run.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	for _, block := range blocks(t, "toml") {
		if _, err := configs.Parse("README.md", []byte(block)); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(block, "\n"); lines > 11 {
			t.Errorf("%d lines, the README promises about ten", lines)
		}
	}
}

// TestReadmeCommands runs the README's commands of this program, but for those
// that serve or need a server, of which it checks that they are commands. The
// make targets are what CI runs, and crictl is run by the integration tests.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(blocks(t, "toml")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(strings.Join(blocks(t, "sh"), "")) {
		command, _, _ := strings.Cut(line, " #")
		words := strings.Fields(strings.ReplaceAll(command, "/etc/cri-proxy/config.toml", file))
		switch {
		case len(words) == 0:
		case words[0] == "make":
			if !bytes.Contains(makefile, []byte("\n"+words[1]+":")) {
				t.Errorf("make has no target %s", words[1])
			}
		case words[0] == "bin/cri-proxy":
			ran += readmeCommand(t, words[1:])
		case words[0] != "crictl":
			t.Errorf("no test runs %q", line)
		}
	}
	if ran < 2 {
		t.Errorf("only %d commands were run", ran)
	}
}

func readmeCommand(t *testing.T, args []string) (ran int) {
	t.Helper()
	command, _, err := newRoot().Find(args)
	if err != nil || command.Name() == "cri-proxy" {
		t.Errorf("%q is no command: %v", args, err)
		return 0
	}
	if command.Name() == "run" || command.Flag("admin") != nil {
		return 0 // The daemon's own tests run these.
	}
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), args, &stdout, &stderr); code != 0 || stdout.Len() == 0 {
		t.Errorf("%q: exit %d, %s", args, code, stderr.String())
	}
	return 1
}
