package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a configuration and where it stands.
type Problem struct {
	// File is as it was named to Load or Parse; "" for a Config that was not read from a file, which has no places.
	File string
	// Line and Column (in bytes) count from 1. A key that is missing has the place of its table's header.
	Line, Column int
	// Key is the whole path, such as handlers.runc.hooks.pre_stop[0].timeout.
	Key string
	// Text says what is wrong and what is allowed.
	Text string
}

// String returns the problem as file:line:column: key: text.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is everything that is wrong with one configuration, in file order. As an error it is one line each.
type Problems []Problem //nolint:errname // It is a list that a caller may walk through, and an error besides.

// Error returns one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// InFileOrder sorts the problems by their places, in place, and returns them.
func (ps Problems) InFileOrder() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ps
}
