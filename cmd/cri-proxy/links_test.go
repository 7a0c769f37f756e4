package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsLink: a link from one document to a file, or to a heading of one,
// leads somewhere.
func TestDocumentsLink(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, file := range append(files, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "CHANGELOG.md")) {
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(readText(t, file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if wrong := followLink(t, file, m[1]); wrong != "" {
				t.Errorf("%s: [%s] %s", file, m[1], wrong)
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links were found", links)
	}
}

// followLink returns why a link does not lead anywhere, or "".
func followLink(t *testing.T, from, link string) string {
	t.Helper()
	path, anchor, _ := strings.Cut(link, "#")
	target := from
	if path != "" {
		target = filepath.Join(filepath.Dir(from), path)
	}
	if _, err := os.Stat(target); err != nil {
		return "is no file"
	}
	if anchor != "" && !headings(readText(t, target))[anchor] {
		return "is no heading of that file"
	}
	return ""
}

// headings returns the anchors that GitHub gives to the headings of a document.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	dropped := regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchors[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return anchors
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
