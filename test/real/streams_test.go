package real_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

func (j *journey) testExecTTY(ctx context.Context, t *testing.T) {
	t.Helper()
	cmd := j.crictl.Command(ctx, "exec", "--interactive", "--tty", short(j.server), "/bin/tty")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	output, err := io.ReadAll(terminal)
	if err != nil && !errors.Is(err, syscall.EIO) { // Linux says so at a terminal's end.
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, output)
	}
	wantContains(t, string(output), "a tty of")
}

// testAttach writes a line to the container that echoes, and leaves it running.
func (j *journey) testAttach(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := j.crictl.Command(ctx, "attach", "--stdin", short(j.reader))
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() //nolint:errcheck // It is killed: attach has no end of its own.
	}()
	fmt.Fprintln(stdin, "attached")
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "attached\n" {
		t.Errorf("attach printed %q (%v), want what was written", line, err)
	}
}

func (j *journey) testPortForward(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := j.crictl.Command(ctx, "port-forward", short(j.podID), ":8080")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() //nolint:errcheck // It is killed: port-forward has no end of its own.
	}()
	address := forwarded(t, stdout)
	if got := get(ctx, t, "http://"+address+"/through-the-port"); !strings.HasPrefix(got, "hello from journey-") {
		t.Errorf("the forwarded port answered %q", got)
	}
}

// forwarded reads the local address that crictl chose.
func forwarded(t *testing.T, stdout io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`).FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("port-forward printed %q", line)
	}
	return found[1]
}

func get(ctx context.Context, t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (j *journey) testLogs(ctx context.Context, t *testing.T) {
	t.Helper()
	wantContains(t, run(ctx, t, j.crictl, "logs", j.server), "listening on 8080\n", "GET /through-the-port")
	wantLines(t, run(ctx, t, j.crictl, "logs", "--tail", "1", short(j.reader)), "attached")
}
