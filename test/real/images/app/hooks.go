package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stubborn adds "RUNS" to a file when it is deaf to TERM, then "TERM" and the time
// in nanoseconds whenever it is told to end, and goes on until it is killed.
func stubborn(args []string) int {
	if len(args) != 1 {
		return fail(errors.New("stubborn: want a file"))
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	if code := appendFile([]string{args[0], "RUNS"}); code != 0 {
		return code
	}
	for {
		<-terminated
		now := strconv.FormatInt(time.Now().UnixNano(), 10)
		if code := appendFile([]string{args[0], "TERM", now}); code != 0 {
			return code
		}
	}
}

// leave ends at once and leaves a child behind that holds standard output for so
// many seconds.
func leave(args []string) int {
	if len(args) != 1 {
		return fail(errors.New("leave: want the seconds"))
	}
	child := exec.Command("/bin/sleep", args[0]) //nolint:noctx // It is to outlive this program.
	child.Stdout = os.Stdout
	if err := child.Start(); err != nil {
		return fail(err)
	}
	fmt.Println("left", child.Process.Pid)
	return 0
}

// try adds a line to a file and fails while that has less than so many.
func try(args []string) int {
	if len(args) != 2 {
		return fail(errors.New("try: want a file and a count"))
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return fail(err)
	}
	if code := appendFile([]string{args[0], "try"}); code != 0 {
		return code
	}
	content, err := os.ReadFile(args[0])
	if err != nil {
		return fail(err)
	}
	if tries := strings.Count(string(content), "\n"); tries < count {
		return fail(fmt.Errorf("try: this is only number %d", tries))
	}
	return 0
}
