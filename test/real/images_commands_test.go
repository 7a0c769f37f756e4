package real_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// listing is the part of `cri-proxy images list -o json` that the tests read.
type listing struct {
	Stores []struct {
		Backend string
		Images  []struct {
			ID       string
			Tags     []string
			Handlers []string
			Size     int64
			Pinned   bool
		}
	}
}

// commanded is a proxy and its own command line.
type commanded struct {
	*stores

	proxy *rig.Proxy
	k     *rig.Kubelet
}

// testImageCommands: people list, pull and copy images as the pods' handlers see
// them.
func testImageCommands(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	file, err := s.DockerConfig("commands", rig.Login{Key: "red.test", User: s.red.User, Password: s.red.Password})
	if err != nil {
		t.Fatal(err)
	}
	proxy := s.proxy(ctx, t, "commands", map[string]string{second: fmt.Sprintf("auth_files = [%q]", file)})
	c := &commanded{s, proxy, kubelet(t, s.node, proxy.Endpoint())}
	for name, test := range map[string]func(context.Context, *testing.T){
		"pull-lines":     c.testPullLines,
		"pull-bar":       c.testPullBar,
		"pull-progress":  c.testProgress,
		"pull-interrupt": c.testInterrupt,
		"pull-private":   c.testPullPrivate,
		"copy":           c.testCopy,
		"noticed":        c.testNoticed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(ctx, t)
		})
	}
}

// run returns what the command printed to both its streams.
func (c *commanded) run(ctx context.Context, arguments ...string) (string, error) {
	output, err := c.proxy.Command(ctx, arguments...).CombinedOutput()
	return string(output), err
}

func (c *commanded) list(ctx context.Context, t *testing.T) listing {
	t.Helper()
	output, err := c.proxy.Command(ctx, "images", "list", "-o", "json").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var listed listing
	if err := json.Unmarshal(output, &listed); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return listed
}

// want asks the list which handlers have an image.
func (c *commanded) want(ctx context.Context, t *testing.T, image image, handlers ...string) {
	t.Helper()
	var got []string
	for _, store := range c.list(ctx, t).Stores {
		for _, i := range store.Images {
			if i.ID == image.ID {
				got = append(got, i.Handlers...)
			}
		}
	}
	if strings.Join(got, " ") != strings.Join(handlers, " ") {
		t.Errorf("the handlers %q have %s, want %q", got, image.name, handlers)
	}
}

// slowBytes take about a second from a slow repository.
const slowBytes = 4 << 20

func (c *commanded) slow(ctx context.Context, t *testing.T) image {
	t.Helper()
	return push(ctx, t, c, "faulty.test/slow/"+repository(t)+":v1", rig.Image{Ballast: slowBytes})
}

func (c *commanded) testPullLines(ctx context.Context, t *testing.T) {
	t.Helper()
	image := c.slow(ctx, t)
	output, err := c.run(ctx, "images", "pull", "--handler", second, image.name)
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	wantContains(t, output, image.name, "handler "+second, "MB of ")
	if strings.ContainsAny(output, "\r\x1b") {
		t.Errorf("a bar or colours where there is no terminal: %q", output)
	}
	c.want(ctx, t, image, second)
}

// testPullBar has a terminal.
func (c *commanded) testPullBar(ctx context.Context, t *testing.T) {
	t.Helper()
	image := c.slow(ctx, t)
	terminal, err := pty.StartWithSize(c.proxy.Command(ctx, "images", "pull", image.name), &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	output, err := io.ReadAll(terminal)
	if err != nil && !errors.Is(err, syscall.EIO) { // Linux says so at a terminal's end.
		t.Error(err)
	}
	wantContains(t, string(output), "\r", "MB", "100%")
	c.want(ctx, t, image, "runc")
}

// testProgress reads the admin API's own lines.
func (c *commanded) testProgress(ctx context.Context, t *testing.T) {
	t.Helper()
	image := c.slow(ctx, t)
	body, err := c.proxy.AdminPost(ctx, "/v1/images/pull", map[string]string{"handler": second, "image": image.name})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var done, total int64
	grown, ended := 0, false
	for decoder := json.NewDecoder(body); decoder.More(); {
		var step struct {
			Progress *struct{ Done, Total int64 }
			Result   *struct{ ID, Message string }
			Error    *struct{ Code, Message string }
		}
		if err := decoder.Decode(&step); err != nil {
			t.Fatal(err)
		}
		switch {
		case step.Error != nil:
			t.Fatalf("%+v", *step.Error)
		case step.Result != nil:
			ended = step.Result.ID == image.ID
		case step.Progress != nil:
			if step.Progress.Done < done || step.Progress.Total < total || step.Progress.Done > step.Progress.Total {
				t.Errorf("after %d of %d come %+v", done, total, *step.Progress)
			}
			if step.Progress.Done > done {
				grown++
			}
			done, total = step.Progress.Done, step.Progress.Total
		}
	}
	t.Logf("%d steps, the last is %d of %d bytes", grown, done, total)
	if !ended || grown < 3 || done != total || total < slowBytes {
		t.Errorf("ended %t, grown %d times to %d of %d bytes: want the image's id, three steps, and all of at least %d bytes",
			ended, grown, done, total, slowBytes)
	}
}

// testInterrupt presses Ctrl-C when the first bytes are there.
func (c *commanded) testInterrupt(ctx context.Context, t *testing.T) {
	t.Helper()
	image := push(ctx, t, c, "faulty.test/slow/"+repository(t)+":v1", rig.Image{Ballast: 4 * slowBytes})
	cmd := c.proxy.Command(ctx, "images", "pull", "--handler", second, image.name)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := func() []rig.Request { return c.faulty.Requests("slow/" + repository(t)) }
	waitFor(ctx, t, func() error {
		for _, request := range asked() {
			if request.Kind == "blobs" && request.End.IsZero() {
				return nil
			}
		}
		return errors.New("no layer is fetched yet")
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("interrupted, the command ended with %v, want exit code 1: %s", err, output.String())
	}
	wantContains(t, output.String(), "interrupted")
	waitFor(ctx, t, func() error {
		for _, request := range asked() {
			if request.End.IsZero() {
				return fmt.Errorf("a layer is still fetched: %+v", request)
			}
		}
		active, err := c.beta.Ctr(ctx, "content", "active")
		if err == nil && strings.Contains(active, "layer-") {
			err = fmt.Errorf("containerd still has half a layer:\n%s", active)
		}
		return err
	})
	c.want(ctx, t, image)
	wantImage(ctx, t, crictl(t, c.node, c.beta.Endpoint()), image, false)
}

// testPullPrivate needs the handler's credentials.
func (c *commanded) testPullPrivate(ctx context.Context, t *testing.T) {
	t.Helper()
	image := private(ctx, t, c.red, repository(t))
	if output, err := c.run(ctx, "images", "pull", "--handler", "runc", image.name); err == nil {
		t.Errorf("a handler without credentials got a private image: %s", output)
	}
	if output, err := c.run(ctx, "images", "pull", "--handler", second, image.name); err != nil {
		t.Errorf("%v: %s", err, output)
	}
	c.want(ctx, t, image, second)
	output, err := c.run(ctx, "images", "list")
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, image.name+" ") {
			wantContains(t, line, " "+second, c.beta.Name)
			return
		}
	}
	t.Errorf("%s is not in the list:\n%s", image.name, output)
}

// testCopy: what one store has can be used from the other without a registry,
// by a pod that never pulls.
func (c *commanded) testCopy(ctx context.Context, t *testing.T) {
	t.Helper()
	for name, made := range map[string]rig.Image{
		"plain": {Ballast: 1 << 20},
		// A store has of an index no more than the node's own platform.
		"index": {Platforms: []string{"linux/" + runtime.GOARCH, "linux/s390x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := push(ctx, t, c, "faulty.test/"+repository(t)+":v1", made)
			c.copied(ctx, t, image, image.name)
		})
		t.Run(name+"-by-digest", func(t *testing.T) {
			t.Parallel()
			made.Ballast = 1 // Not the image of the other test.
			image := push(ctx, t, c, "faulty.test/"+repository(t)+":v1", made)
			c.copied(ctx, t, image, "faulty.test/"+repository(t)+"@"+image.Digest)
		})
	}
}

// copied brings an image from the first store to the second, by the name that
// the pod has for it.
func (c *commanded) copied(ctx context.Context, t *testing.T, image image, reference string) {
	t.Helper()
	run(ctx, t, crictl(t, c.node, c.alpha.Endpoint()), "pull", reference)
	before := len(c.faulty.Requests(repository(t)))
	pod := sandbox(ctx, t, c.k, second)
	never := rig.KubeletContainer{Image: reference, Policy: rig.Never}
	if _, err := c.k.Start(ctx, pod, never); !errors.Is(err, rig.ErrNeverPull) {
		t.Errorf("before the copy the pod got %v, want that the image is absent", err)
	}
	if output, err := c.run(ctx, "images", "copy", "--from", "runc", "--to", second, reference); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	c.want(ctx, t, image, "runc", second)
	start(ctx, t, c.k, pod, never, false)
	if after := len(c.faulty.Requests(repository(t))); after != before {
		t.Errorf("the registry was asked %d times for a copy", after-before)
	}
}

// testNoticed loads an image into one store only, beside the proxy.
func (c *commanded) testNoticed(ctx context.Context, t *testing.T) {
	t.Helper()
	image := push(ctx, t, c, "faulty.test/"+repository(t)+":v1", rig.Image{})
	pod := sandbox(ctx, t, c.k, second)
	if present(ctx, t, c.k, pod, image.name) {
		t.Fatal("an image is there before it was put there")
	}
	if _, err := c.beta.Ctr(ctx, "images", "pull", "--hosts-dir", c.beta.HostsDir(), image.name); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, func() error {
		if !present(ctx, t, c.k, pod, image.name) {
			return errors.New("an image from outside is not noticed")
		}
		return nil
	})
	start(ctx, t, c.k, pod, rig.KubeletContainer{Image: image.name, Policy: rig.Never}, false)
	c.want(ctx, t, image, second)
}
