package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// ErrNotRunning is wrapped by the client's error when nobody listens on the
// socket.
var ErrNotRunning = errors.New("cri-proxy is not running there")

// maxErrorText is how much of an error's body is shown.
const maxErrorText = 4096

// Get asks the daemon behind an admin socket and returns the body of a 2xx
// answer. Any other answer is an error with the daemon's own words.
func Get(ctx context.Context, socketPath, path string) ([]byte, error) {
	response, err := Do(ctx, socketPath, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer to GET %s: %w", path, err)
	}
	return body, nil
}

// Do is Get for any method, and for answers that are read while they are
// written. The caller closes the body.
func Do(ctx context.Context, socketPath, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://cri-proxy"+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // one request, and no goroutine after it
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath)
		},
	}}
	response, err := client.Do(request)
	if err != nil {
		return nil, explain(err, socketPath)
	}
	if response.StatusCode/100 != 2 {
		return nil, refusal(response, method, path)
	}
	return response, nil
}

// explain says what to do about a socket that cannot be reached.
func explain(err error, socketPath string) error {
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return fmt.Errorf("ask cri-proxy on %s: %w", socketPath, err)
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s: %w: start it, or name its admin socket with --admin", socketPath, ErrNotRunning)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("admin socket %s: %w: run this as root", socketPath, dial.Err)
	}
	return fmt.Errorf("admin socket %s: %w", socketPath, dial.Err)
}

func refusal(response *http.Response, method, path string) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, maxErrorText))
	err = errors.Join(err, response.Body.Close())
	refused := fmt.Errorf("%s %s: %s: %s", method, path, response.Status, strings.TrimSpace(string(text)))
	return errors.Join(refused, err)
}
