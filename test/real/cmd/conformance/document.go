package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/critest"
)

// What is between the markers is the command's; what is around them is kept.
const (
	beginMark = "<!-- begin: written by make conformance -->"
	endMark   = "<!-- end: written by make conformance -->"
)

// replace puts the text between the markers of the file.
func replace(file, text string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return fmt.Errorf("%s lacks the lines %q and %q that the result is written between", file, beginMark, endMark)
	}
	return os.WriteFile(file, []byte(before+beginMark+"\n\n"+text+"\n"+endMark+after), 0o644)
}

// text is the result in Markdown.
func (b *bench) text(results []result) string {
	var text strings.Builder
	fmt.Fprintf(&text, "`sudo make conformance`, %s, with cri-proxy %s, %s, containerd %s and %s, runc %s; critest's images: %s.\n\n",
		time.Now().UTC().Format(time.DateOnly), b.commit, version("critest", b.rig.Parts.CRITools),
		version("", b.rig.Parts.Containerd), version("", b.rig.Parts.Containerd17), version("", b.rig.Parts.Runc), b.images)
	text.WriteString("| | combination | handler | directly: passed / failed / skipped | through the proxy | lost |\n|---|---|---|---|---|---|\n")
	for _, result := range results {
		direct, proxied := result.direct.Counts(), result.proxied.Counts()
		fmt.Fprintf(&text, "| %c | %s | `%s` | %d / %d / %d | %d / %d / %d | %d |\n", result.letter, result.what, result.handler,
			direct.Passed, direct.Failed, direct.Skipped, proxied.Passed, proxied.Failed, proxied.Skipped, len(result.lost()))
	}
	for _, result := range results {
		for _, lost := range result.lost() {
			fmt.Fprintf(&text, "\n**Lost in (%c)**: %s: %s: %s\n", result.letter, lost.Spec, lost.State, short(lost.Reason))
		}
	}
	text.WriteString("\nWhat does not pass directly, and so is not asked of the proxy:\n\n")
	for _, name := range notPassed(results) {
		explain(&text, name, results)
	}
	return text.String()
}

// notPassed are the specs that did not pass directly in any combination, sorted.
func notPassed(results []result) []string {
	var names []string
	for _, result := range results {
		names = append(names, result.direct.Names("")...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// explain tells in which combinations a spec did not pass directly, and why not
// in the first of them; and where the proxy made another thing of it.
func explain(text *strings.Builder, name string, results []result) {
	var letters, other strings.Builder
	var reason string
	for _, result := range results {
		direct, proxied := result.direct[name], result.proxied[name]
		if direct.State == critest.Passed {
			continue
		}
		letters.WriteRune(result.letter)
		reason = cmp.Or(reason, fmt.Sprintf("%s: %s", direct.State, short(direct.Reason)))
		if direct.State != proxied.State {
			fmt.Fprintf(&other, " (%s through the proxy in %c)", proxied.State, result.letter)
		}
	}
	fmt.Fprintf(text, "- %s: %s: %s%s\n", &letters, name, reason, &other)
}

// short is the beginning of the first line.
func short(reason string) string {
	const longest = 160
	line, _, _ := strings.Cut(strings.TrimSpace(reason), "\n")
	if len(line) > longest {
		return strings.ToValidUTF8(line[:longest], "") + "…"
	}
	return line
}

// version is that of a part, from the name of its folder in the cache.
func version(name, bin string) string {
	number, _, _ := strings.Cut(filepath.Base(filepath.Dir(bin)), "-")
	return strings.TrimSpace(name + " " + number)
}

// commit names what the proxy was built from.
func commit(ctx context.Context, root string) string {
	output, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty= with changes").Output()
	if err != nil {
		return "of an unknown commit"
	}
	return strings.TrimSpace(string(output))
}
