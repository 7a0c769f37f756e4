package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testStreams does with a pod of each handler what people do with kubectl.
func testStreams(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	for _, handler := range handlers() {
		pod := s.pod(handler, handler, image)
		echo := pod.Spec.Containers[0]
		echo.Name, echo.Command, echo.Stdin = "echo", []string{"/bin/cat"}, true
		pod.Spec.Containers = append(pod.Spec.Containers, echo)
		s.create(ctx, t, pod)
	}
	s.ready(ctx, t, handlers()...)
	for _, handler := range handlers() {
		s.testExec(ctx, t, handler)
		s.testLogs(ctx, t, handler)
		s.testAttach(ctx, t, handler)
		s.testPortForward(ctx, t, handler)
		s.testCopy(ctx, t, handler)
	}
}

func (s *space) testExec(ctx context.Context, t *testing.T, handler string) {
	t.Helper()
	s.wantHandler(ctx, t, handler, handler)
	arguments := []string{"--namespace", s.name, "exec", "-i", handler, "-c", "app", "--"}
	got, err := s.RunKubectl(ctx, strings.NewReader("typed\n"), append(arguments, "/bin/cat")...)
	if err != nil || got != "typed\n" {
		t.Errorf("exec cat printed %q (%v), want what was typed", got, err)
	}
	if _, err := s.RunKubectl(ctx, strings.NewReader(""), append(arguments, "/bin/exit", "7")...); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		t.Errorf("exec exit 7: %v", err)
	}
}

// testLogs follows a log into which new lines come.
func (s *space) testLogs(ctx context.Context, t *testing.T, handler string) {
	t.Helper()
	followed := s.start(ctx, t, nil, "logs", "-f", handler, "-c", "app")
	s.wait(ctx, t, func() error { return contains(followed.String(), "listening on 8080") })
	s.askThroughServer(ctx, t, handler, "/followed")
	s.wait(ctx, t, func() error { return contains(followed.String(), "GET /followed") })
	wantContains(t, s.mustKubectl(ctx, t, "logs", handler, "-c", "app"), "listening on 8080", "GET /followed")
}

// askThroughServer sends a request to a pod by the API server's own proxy.
func (s *space) askThroughServer(ctx context.Context, t *testing.T, pod, path string) {
	t.Helper()
	_, err := s.Client.CoreV1().RESTClient().Get().Namespace(s.name).Resource("pods").Name(pod + ":8080").
		SubResource("proxy").Suffix(path).DoRaw(ctx)
	if err != nil {
		t.Errorf("ask %s for %s: %v", pod, path, err)
	}
}

func (s *space) testAttach(ctx context.Context, t *testing.T, handler string) {
	t.Helper()
	reader, writer := io.Pipe()
	attached := s.start(ctx, t, reader, "attach", "-i", handler, "-c", "echo")
	s.wait(ctx, t, func() error {
		// What is typed before the stream stands is lost in some runtimes.
		if _, err := io.WriteString(writer, "attached\n"); err != nil {
			return err
		}
		return contains(attached.String(), "attached")
	})
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
}

func (s *space) testPortForward(ctx context.Context, t *testing.T, handler string) {
	t.Helper()
	forwarded := s.start(ctx, t, nil, "port-forward", handler, ":8080")
	address := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)
	s.wait(ctx, t, func() error {
		found := address.FindStringSubmatch(forwarded.String())
		if found == nil {
			return fmt.Errorf("port-forward has not said where it listens: %s", forwarded)
		}
		got, err := get(ctx, "http://"+found[1]+"/")
		if err != nil {
			return err
		}
		return contains(got, "hello from "+handler)
	})
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return string(content), err
}

// testCopy copies a file into a container and back. The image has no tar, so
// kubectl gets one.
func (s *space) testCopy(ctx context.Context, t *testing.T, handler string) {
	t.Helper()
	folder := t.TempDir()
	there, back := filepath.Join(folder, "there"), filepath.Join(folder, "back")
	text := strings.Repeat("copied to "+handler+"\n", 1<<14)
	if err := os.WriteFile(there, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustKubectl(ctx, t, "cp", "-c", "app", there, handler+":/tmp/copied")
	s.mustKubectl(ctx, t, "cp", "-c", "app", handler+":/tmp/copied", back)
	got, err := os.ReadFile(back)
	if err != nil || string(got) != text {
		t.Errorf("%d bytes came back of %d (%v)", len(got), len(text), err)
	}
}
