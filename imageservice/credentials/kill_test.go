package credentials

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pipe is held open by a plugin and its child.
type pipe struct {
	path   string
	reader *bufio.Reader
}

func newPipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open waits until the plugin and its child are up.
func (p *pipe) open(t *testing.T) {
	t.Helper()
	file, err := os.Open(p.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	p.reader = bufio.NewReader(file)
	if line, err := p.reader.ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the plugin said %q, %v", line, err)
	}
}

// wantEnd waits until the last process that holds the pipe has ended.
func (p *pipe) wantEnd(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(p.reader); err != nil || len(rest) > 0 {
		t.Errorf("the end of the pipe: %q, %v", rest, err)
	}
}

func TestPluginThatHangsIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, mode, reason string
		time               time.Duration
	}{
		{"hangs", "hang", "it took over 3s and was killed", 3 * time.Second},
		{"leaves a child with its output", "daemon", "it ended and left a child", time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, l := pipe{path: newPipe(t)}, lifted()
			l.time = tt.time
			r := newRig(t, l, provider{mode: tt.mode, argument: p.path})
			var wg sync.WaitGroup
			wg.Go(func() { wantLookup(t, r.Keyring, "quay.io/a") })
			p.open(t)
			wg.Wait()
			p.wantEnd(t)
			if log := r.logs.String(); !strings.Contains(log, tt.reason) {
				t.Errorf("the log has no %q:\n%s", tt.reason, log)
			}
		})
	}
}

func TestPluginIsKilledWhenItsCallerLeaves(t *testing.T) {
	t.Parallel()
	p := pipe{path: newPipe(t)}
	r := newRig(t, lifted(), provider{mode: "hang", argument: p.path})
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := r.Lookup(ctx, "quay.io/a")
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "credential provider p0") {
			t.Errorf("the error is %v, want one that says what was waited for", err)
		}
	})
	p.open(t)
	leave()
	wg.Wait()
	p.wantEnd(t)
	if log := r.logs.String(); strings.Contains(log, "level=warning") {
		t.Errorf("there is a warning, though the plugin did nothing wrong:\n%s", log)
	}
}
