package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// appendFile adds the words after the file's name to it as one line.
func appendFile(args []string) int {
	if len(args) == 0 {
		return fail(errors.New("append: a file is missing"))
	}
	file, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fail(err)
	}
	if _, err := fmt.Fprintln(file, strings.Join(args[1:], " ")); err != nil {
		return fail(err)
	}
	if err := file.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// cat prints the files, or what it reads where none is named.
func cat(args []string) int {
	if len(args) == 0 {
		return copyOut(os.Stdin)
	}
	for _, name := range args {
		file, err := os.Open(name)
		if err != nil {
			return fail(err)
		}
		if code := copyOut(file); code != 0 {
			return code
		}
	}
	return 0
}

func copyOut(from io.ReadCloser) int {
	_, err := io.Copy(os.Stdout, from)
	if err := errors.Join(err, from.Close()); err != nil {
		return fail(err)
	}
	return 0
}

// echo prints its arguments, with "-n" without a line's end.
func echo(args []string) int {
	end := "\n"
	if len(args) > 0 && args[0] == "-n" {
		args, end = args[1:], ""
	}
	fmt.Print(strings.Join(args, " "), end)
	return 0
}

// stderr is echo to the other stream.
func stderr(args []string) int {
	fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	return 0
}

func env([]string) int {
	for _, pair := range os.Environ() {
		fmt.Println(pair)
	}
	return 0
}

// exit ends with the code it is given.
func exit(args []string) int {
	if len(args) != 1 {
		return fail(errors.New("exit: want one code"))
	}
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return fail(err)
	}
	return code
}

func id([]string) int {
	groups, err := os.Getgroups()
	if err != nil {
		return fail(err)
	}
	fmt.Printf("uid=%d gid=%d groups=%v\n", os.Getuid(), os.Getgid(), groups)
	return 0
}

func hostname([]string) int {
	name, err := os.Hostname()
	if err != nil {
		return fail(err)
	}
	fmt.Println(name)
	return 0
}

// top is a command that runs until it is told to end.
func top([]string) int {
	return sleep([]string{"1000000"})
}

// list prints the names in each folder.
func list(args []string) int {
	for _, folder := range args {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return fail(err)
		}
		for _, entry := range entries {
			fmt.Println(entry.Name())
		}
	}
	return 0
}

// sleep waits for so many seconds, a fraction allowed, or for SIGTERM. As a
// container's first process it would not hear that signal without a handler.
func sleep(args []string) int {
	if len(args) != 1 {
		return fail(errors.New("sleep: want the seconds"))
	}
	seconds, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return fail(err)
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	select {
	case <-terminated:
	case <-time.After(time.Duration(seconds * float64(time.Second))):
	}
	return 0
}

// tty says whether standard input is a terminal, and of what size.
func tty([]string) int {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, os.Stdin.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		fmt.Println("not a tty")
		return 1
	}
	fmt.Printf("a tty of %d rows and %d columns\n", size.rows, size.columns)
	return 0
}
