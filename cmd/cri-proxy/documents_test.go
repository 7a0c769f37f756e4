package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/cri-proxy/cri-proxy/configs"
)

// document reads one of the project's documents.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns README.md, CONTRIBUTING.md and all in docs, by their names.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	all := map[string]string{}
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		all[name] = document(t, name)
	}
	for _, file := range files {
		name := filepath.Join("docs", filepath.Base(file))
		all[name] = document(t, name)
	}
	return all
}

// TestReadmeConfiguration: what the README tells users to write is valid, and
// short. All blocks of all documents are run by TestDocuments in test/real.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(document(t, "README.md"), -1)
	if len(found) != 1 {
		t.Fatalf("the README has %d configurations, want 1", len(found))
	}
	if _, err := configs.Parse("README.md", []byte(found[0][1])); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(found[0][1], "\n"); lines > 11 {
		t.Errorf("%d lines, the README promises about ten", lines)
	}
}

// TestDocumentedCommands: every command of this program that a document names is
// one, with flags that it has.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, text := range documents(t) {
		for _, words := range commandsIn(text) {
			checked++
			if err := isCommand(words); err != nil {
				t.Errorf("%s: cri-proxy %s: %v", name, strings.Join(words, " "), err)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d commands were found", checked)
	}
}

// TestWrongCommandsAreFound: what TestDocumentedCommands looks for.
func TestWrongCommandsAreFound(t *testing.T) {
	t.Parallel()
	for text, wrong := range map[string]bool{
		"`cri-proxy status --watch`":                                                 false,
		"`cri-proxy hooks drop`":                                                     false,
		"`cri-proxy\nhooks drop ID`":                                                 false,
		"`cri-proxy images pull --handler <name> <sandbox image>`":                   false,
		"`cri-proxy run --config /x`":                                                false,
		"```sh\ndocker exec a cri-proxy images copy --from a --to b c:1\n```\n":      false,
		"`cri-proxy statsu`":                                                         true,
		"`cri-proxy hooks lst`":                                                      true,
		"`cri-proxy status --wach`":                                                  true,
		"`cri-proxy status all`":                                                     true,
		"```sh\ncri-proxy images list --hander=x # lists\n```\n":                     true,
		"```sh\nid=$(cri-proxy hooks lst | awk 1)\n```\n":                            true,
		"```sh\ndocker exec a cri-proxy images copy --form a --to b c:1 || x\n```\n": true,
	} {
		commands := commandsIn(text)
		if len(commands) != 1 {
			t.Errorf("%q: %d commands, want 1", text, len(commands))
		} else if err := isCommand(commands[0]); (err != nil) != wrong {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// commandsIn returns the arguments of each "cri-proxy …" in backquotes and in
// blocks of commands.
func commandsIn(text string) (all [][]string) {
	fenced := regexp.MustCompile("(?sm)^ *```(\\w*)\n(.*?)^ *```$")
	for _, block := range fenced.FindAllStringSubmatch(text, -1) {
		if block[1] != "sh" {
			continue
		}
		called := regexp.MustCompile(`(?m)(?:^ *(?:bin/)?|\$\(|docker exec \S+ )cri-proxy ([^#|;&)\n]*)`)
		for _, command := range called.FindAllStringSubmatch(block[2], -1) {
			all = append(all, strings.Fields(command[1]))
		}
	}
	inline := regexp.MustCompile("`cri-proxy\\s([^`]+)`")
	for _, command := range inline.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(command[1], "x")))
	}
	return all
}

// isCommand returns why a command would be refused. One that lacks an argument is
// only named.
func isCommand(words []string) error {
	root := newRoot()
	root.SetOut(io.Discard)
	command, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if err := command.ParseFlags(rest); err != nil {
		return err
	}
	positional := command.Flags().Args()
	if len(positional) == 0 && slices.ContainsFunc(words, isName) {
		return nil
	}
	return validate(command, positional)
}

func isName(word string) bool { return !strings.HasPrefix(word, "-") }

func validate(command *cobra.Command, args []string) error {
	if command.Args == nil {
		return nil
	}
	return command.Args(command, args)
}

// TestDocumentedLinks: what a document links to is there, heading and all.
func TestDocumentedLinks(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, text := range documents(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue // Not of this repository.
			}
			checked++
			file, heading, _ := strings.Cut(link[1], "#")
			target := filepath.Join(filepath.Dir(name), file)
			if file == "" {
				target = name
			}
			if _, err := os.Stat(filepath.Join("..", "..", target)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere: %v", name, link[1], err)
			} else if heading != "" && !slices.Contains(headings(document(t, target)), heading) {
				t.Errorf("%s: the link to %s leads to no heading of %s", name, link[1], target)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d links were found", checked)
	}
}

// headings are the names by which a document's headings are linked to, made as
// GitHub makes them.
func headings(text string) (names []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		names = append(names, strings.ReplaceAll(plain, " ", "-"))
	}
	return names
}
