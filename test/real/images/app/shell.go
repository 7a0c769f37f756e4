package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sh runs what critest gives to a shell: `sh -c "COMMAND WORDS"`, where
// "|| true" may follow. It knows no quotes and no other commands than app's.
func sh(args []string) int {
	if len(args) != 2 || args[0] != "-c" {
		return fail(fmt.Errorf("sh: want -c and one command, got %q", args))
	}
	command, forgiven := strings.CutSuffix(args[1], "|| true")
	code := run(append([]string{"app"}, strings.Fields(command)...))
	if forgiven {
		return 0
	}
	return code
}

// pgrep prints the ids of the processes of that name, and fails if there are none.
func pgrep(args []string) int {
	if len(args) != 1 {
		return fail(errors.New("pgrep: want one name"))
	}
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return fail(err)
	}
	code := 1
	for _, file := range files {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == args[0] {
			fmt.Println(filepath.Base(filepath.Dir(file)))
			code = 0
		}
	}
	return code
}
