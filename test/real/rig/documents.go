package rig

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is a fenced block of one of the project's documents.
type Block struct {
	File string // relative to the repository
	Line int    // where its text begins

	Language string // "sh", "toml", …; "" if it has none
	Test     string // which test has to do with it, from the comment "<!-- test: … -->" right above it; "" without one
	Text     string
}

// Blocks returns all blocks of README.md, CONTRIBUTING.md and docs, file by file
// and in their order. Tests run what a document says instead of a copy of it.
func Blocks(root string) ([]Block, error) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var all []Block
	for _, file := range append([]string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")}, files...) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		all = append(all, blocksOf(name, string(text))...)
	}
	return all, nil
}

func blocksOf(file, text string) (all []Block) {
	fenced := regexp.MustCompile("(?sm)(?:^<!-- test: ([^\n]*) -->\n)?^```([a-z]*)\n(.*?)^```$")
	part := func(match []int, group int) string {
		if match[2*group] < 0 {
			return ""
		}
		return text[match[2*group]:match[2*group+1]]
	}
	for _, match := range fenced.FindAllStringSubmatchIndex(text, -1) {
		all = append(all, Block{
			File: file, Line: strings.Count(text[:match[6]], "\n") + 1,
			Test: part(match, 1), Language: part(match, 2), Text: part(match, 3),
		})
	}
	return all
}
