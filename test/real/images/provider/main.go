// Provider is a kubelet credential provider plugin of which a test decides the
// answer: `provider CALLS ANSWER` adds the request from standard input as one
// line to the first file, and prints the second. It fails where there is none,
// and hangs where that is a pipe without a writer.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want two files, got %q", args)
	}
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, request); err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	line.WriteByte('\n')
	calls, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// One write: two plugins may run at one time.
	if _, err := calls.Write(line.Bytes()); err != nil {
		return err
	}
	if err := calls.Close(); err != nil {
		return err
	}
	answer, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(answer)
	return err
}
