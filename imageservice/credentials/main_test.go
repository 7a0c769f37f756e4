package credentials

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

// modeVariable makes the test binary a credential provider.
const modeVariable = "CREDENTIALS_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeVariable); mode != "" {
		if err := playPlugin(mode, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// playPlugin notes the request in a file and does what the mode says; for
// "answer" it prints the argument.
func playPlugin(mode, calls, argument string) error {
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(calls, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(file, "%s\n", request); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	switch mode {
	case "answer":
		_, err := fmt.Fprintln(os.Stdout, argument)
		return err
	case "fail":
		return fmt.Errorf("the secret is refused; %s", strings.Repeat("long ", 10_000))
	case "flood":
		for {
			if _, err := fmt.Fprintln(os.Stdout, argument); err != nil {
				return err
			}
		}
	case "hang":
		return hang(argument, nil)
	case "daemon":
		return hang(argument, os.Stdout)
	}
	return fmt.Errorf("no mode %s", mode)
}

// hang starts a child that has the pipe open, as this process has. With an
// output, which the child gets too, it returns; without, it never does.
func hang(pipe string, output io.Writer) error {
	held, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	child := exec.Command("sleep", "600") //nolint:noctx // It is to outlive everything but a kill.
	child.Stdout, child.ExtraFiles = output, []*os.File{held}
	if err := child.Start(); err != nil {
		return err
	}
	if _, err := held.WriteString("up\n"); err != nil || output != nil {
		return err
	}
	return child.Wait()
}

// logs is a logger at debug level whose output can be read.
type logs struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logs) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(data)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *logs) entry() *logrus.Entry {
	logger := logrus.New()
	logger.SetOutput(l)
	logger.SetLevel(logrus.TraceLevel)
	return logrus.NewEntry(logger)
}

// clock is a time that only the test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_000_000, c.offset.Load()) }

func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// replace writes a file as a careful writer does, so that it is another one.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// writeFile writes a file of the test's own directory.
func writeFile(t *testing.T, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	replace(t, path, content)
	return path
}

// usernames are what the tests know credentials by.
func usernames(found []Credential) []string {
	var names []string
	for _, c := range found {
		names = append(names, c.Username)
	}
	return names
}
