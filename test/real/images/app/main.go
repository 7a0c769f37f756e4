// App is the one program of the test images: what a test runs inside a
// container, chosen by the name it is called by (the images link every name to
// it) or by its first argument. It is no shell and no busybox; each name does
// the least that a test can recognise.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// applet is one of the names. It gets the arguments after its own name and
// returns the exit code.
type applet func(args []string) int

func applets() map[string]applet {
	return map[string]applet{
		"append":   appendFile,
		"cat":      cat,
		"echo":     echo,
		"env":      env,
		"exit":     exit,
		"hostname": hostname,
		"id":       id,
		"leave":    leave,
		"ls":       list,
		"pgrep":    pgrep,
		"serve":    serve,
		"sh":       sh,
		"sleep":    sleep,
		"stderr":   stderr,
		"stubborn": stubborn,
		"tar":      archive,
		"top":      top,
		"try":      try,
		"tty":      tty,
	}
}

func main() {
	os.Exit(run(os.Args))
}

func run(args []string) int {
	known := applets()
	name := filepath.Base(args[0])
	if _, ok := known[name]; !ok && len(args) > 1 {
		args, name = args[1:], args[1]
	}
	chosen, ok := known[name]
	if !ok {
		return fail(fmt.Errorf("no such applet: %q", name))
	}
	return chosen(args[1:])
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
