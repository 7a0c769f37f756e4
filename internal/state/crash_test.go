package state

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What Put returned for survives kill -9 at any instant, and the file is sound.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	for round := range 4 {
		last := writeAndKill(t, o.Dir, 5+13*round)
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if s.ResetFrom() != "" {
			t.Fatalf("round %d: the file was damaged", round)
		}
		all, err := SandboxHandlers(s).All()
		for i := range last + 1 {
			if _, ok := all[strconv.Itoa(i)+"/0"]; !ok {
				t.Errorf("round %d: record %d of %d is lost (%v)", round, i, last, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeAndKill kills a writer after some records and returns the number of the
// last record that it said was written.
func writeAndKill(t *testing.T, dir string, records int) int {
	t.Helper()
	cmd := child(t, "write", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, last := bufio.NewScanner(out), -1
	for n := 0; lines.Scan(); n++ {
		if n == records {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil || last < records {
		t.Fatalf("the writer ended with %v after record %d", err, last)
	}
	return last
}

func TestDiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can mount a file system that is full or read-only")
	}
	tests := []struct {
		role string
		want []string
	}{
		{"full", []string{"no space left on device (free some space", `reset="" lost=0`}},
		{"read-only", []string{"read-only file system (the file system is read-only: remount it"}},
	}
	for _, tt := range tests {
		t.Run(tt.role, func(t *testing.T) {
			t.Parallel()
			cmd := child(t, tt.role, t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("printed %q, want %q", out, want)
				}
			}
		})
	}
}
