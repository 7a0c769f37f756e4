package serviceenv

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const webHost = "WEB_SERVICE_HOST"

func webAt(ip string) string { return list(service("shop", "web", ip, 80)) }

// TestFileFollowed: the next container gets what the file says by then, and the
// last that was good where it says nothing sensible.
func TestFileFollowed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.yaml")
	r := newRig(t, Options{File: path})
	step := func(what, want string, synced, failures float64, warnings int) {
		t.Helper()
		r.logged.Reset()
		for range 3 { // The same file again is no news.
			if got := r.host("shop", webHost); !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
		if got := r.metric("cri_proxy_service_cache_synced"); got != synced {
			t.Errorf("%s: synced is %v", what, got)
		}
		if got := r.metric("cri_proxy_service_cache_errors_total"); got != failures {
			t.Errorf("%s: %v failures", what, got)
		}
		if got := r.warnings(); got != warnings {
			t.Errorf("%s: %d warnings", what, got)
		}
		if failed := r.State().Error != ""; failed != (warnings > 0) {
			t.Errorf("%s: %+v", what, r.State())
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	step("before the file is there", "no such file", 0, 3, 1)
	replace(t, path, webAt("10.0.0.1"))
	step("the file came", "10.0.0.1", 1, 3, 0)
	replace(t, path, webAt("10.0.0.2"))
	step("another file", "10.0.0.2", 1, 3, 0)
	write(webAt("10.0.0.33"))
	step("written in place", "10.0.0.33", 1, 3, 0)
	write(webAt("10.0.0.4")[:80])
	step("half of it", "10.0.0.33", 1, 6, 1)
	write("")
	step("nothing of it", "10.0.0.33", 1, 9, 1)
	write(webAt("10.0.0.5"))
	step("all of it", "10.0.0.5", 1, 9, 0)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	step("the file went", "10.0.0.5", 1, 12, 1)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	step("the same file came back", "10.0.0.5", 1, 12, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	step("the file was removed", "10.0.0.5", 1, 15, 1)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	step("a pipe, which nobody writes to", "10.0.0.5", 1, 18, 1)
	replace(t, path, list())
	step("no Services any more", "", 1, 18, 0)
	if got := r.host("shop", webHost); got != "" {
		t.Errorf("got %q of an empty list", got)
	}
}

// TestFileOfConfigMap: a mount of a ConfigMap is changed by another target of a
// link above the file.
func TestFileOfConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount := func(version, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "services.yaml"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		// The same time and size for all versions: only the file is another.
		if err := os.Chtimes(filepath.Join(dir, version, "services.yaml"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", webAt("10.0.0.1"))
	if err := os.Symlink("..data/services.yaml", filepath.Join(dir, "services.yaml")); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Options{File: filepath.Join(dir, "services.yaml")})
	if got := r.host("shop", webHost); got != "10.0.0.1" {
		t.Errorf("got %q", got)
	}
	mount("..2", webAt("10.0.0.2"))
	if got := r.host("shop", webHost); got != "10.0.0.2" {
		t.Errorf("after the change: %q", got)
	}
}

// TestFileWatched: a mistake is told, and mended, without any container.
func TestFileWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := servicesFile(t, webAt("10.0.0.1"))
		r := newRig(t, Options{File: path})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		state := func(what string, services int, failed bool) {
			t.Helper()
			if s := *r.State(); !s.Synced || s.Services != services || (s.Error != "") != failed || s.Source != path {
				t.Errorf("%s: %+v", what, s)
			}
		}
		synctest.Wait()
		state("at the start", 1, false)
		replace(t, path, "apiVersion: v1\nkind: Pod\n")
		<-time.After(fileInterval + time.Second)
		state("broken", 1, true)
		replace(t, path, list(service("a", "a", "10.0.0.1", 1), service("a", "b", "10.0.0.2", 1), service("a", "c", "", 1)))
		<-time.After(fileInterval)
		state("mended", 3, false)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFileTooLarge(t *testing.T) {
	t.Parallel()
	path := servicesFile(t, webAt("10.0.0.1"))
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readServices(path); err == nil || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Errorf("got %v", err)
	}
}
