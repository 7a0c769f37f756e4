package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

// childEnv makes the test binary play one of the roles below on a directory.
const childEnv = "CRI_PROXY_STATE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := play(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func play(role, dir string) error {
	switch role {
	case "write":
		return writeForEver(dir)
	case "full":
		return writeUntilFull(dir)
	case "read-only":
		return openReadOnly(dir)
	}
	return fmt.Errorf("no role %q", role)
}

// child is the command that runs the test binary in a role.
func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, dir)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForEver prints each number after Put has returned for it.
func writeForEver(dir string) error {
	s, err := Open(context.Background(), options(dir))
	if err != nil {
		return err
	}
	h := SandboxHandlers(s)
	all, err := h.All()
	if err != nil {
		return err
	}
	for i := len(all); ; i++ {
		if err := h.Put(strconv.Itoa(i)+"/0", "runc"); err != nil {
			return err
		}
		if err := printed(fmt.Fprintln(os.Stdout, i)); err != nil {
			return err
		}
	}
}

// writeUntilFull mounts a small file system in a mount namespace of its own and
// prints the error of the disk that is full, then reads back what it wrote.
func writeUntilFull(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		return err
	}
	s, err := Open(context.Background(), options(dir))
	if err != nil {
		return err
	}
	h, written := SandboxHandlers(s), 0
	for ; err == nil && written < 10_000; written++ {
		err = h.Put(strconv.Itoa(written)+"/0", string(make([]byte, 1000)))
	}
	if err := errors.Join(printed(fmt.Fprintln(os.Stdout, err)), s.Close()); err != nil {
		return err
	}
	if s, err = Open(context.Background(), options(dir)); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	all, err := SandboxHandlers(s).All()
	return errors.Join(err, printed(fmt.Fprintf(os.Stdout, "reset=%q lost=%d\n", s.ResetFrom(), written-1-len(all))))
}

func openReadOnly(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	_, err := Open(context.Background(), options(dir))
	return printed(fmt.Fprintln(os.Stdout, err))
}

func printed(_ int, err error) error { return err }

func options(dir string) Options {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return Options{Dir: dir, LockTimeout: 100 * time.Millisecond, Log: logrus.NewEntry(log)}
}

// open opens a store that is closed at the end of the test.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
