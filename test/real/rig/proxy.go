package rig

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// Proxy is one cri-proxy of the rig, started and killed any number of times
// over one socket and one state folder.
type Proxy struct {
	Socket string // path; Endpoint is the same as a URL
	Admin  string // path of the admin socket
	Config string // path of the configuration file
	Log    string // path of its log

	Metrics string // host:port of its metrics; "" unless they were asked for

	process process
}

// ProxyOptions is what Rig.Proxy needs.
type ProxyOptions struct {
	Name           string // unique in the rig, at most eight characters
	DefaultHandler string
	LogLevel       string // "" is debug
	Metrics        bool   // have them on a port of the loopback interface, too
	// Config is the rest of the configuration file: [backends.…] and
	// [handlers.…]. The listeners, the state folder and the log are the rig's.
	Config string
}

// Proxy configures another cri-proxy and starts it.
func (r *Rig) Proxy(ctx context.Context, options ProxyOptions) (*Proxy, error) {
	dir := filepath.Join(r.Dir, options.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	p := &Proxy{
		Socket: filepath.Join(dir, "p.sock"), Admin: filepath.Join(dir, "a.sock"), Config: filepath.Join(dir, "config.toml"),
		Log: filepath.Join(r.Dir, options.Name+".log"),
	}
	if options.Metrics {
		ports, err := freePorts(ctx, 1)
		if err != nil {
			return nil, err
		}
		p.Metrics = "127.0.0.1:" + ports[0]
	}
	p.process = process{
		name: "cri-proxy " + options.Name, path: r.proxyBinary(),
		args: []string{"run", "--config", p.Config}, log: p.Log,
	}
	config := fmt.Sprintf(`version = 1
default_handler = %q

[server]
listen = %q

[state]
dir = %q

[admin]
listen = %q
metrics_listen = %q

[log]
level = %q

`, options.DefaultHandler, p.Endpoint(), filepath.Join(dir, "state"), "unix://"+p.Admin, p.Metrics, cmp.Or(options.LogLevel, "debug"))
	if err := os.WriteFile(p.Config, []byte(config+options.Config), 0o600); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.proxies = append(r.proxies, p)
	r.mu.Unlock()
	return p, p.Start(ctx)
}

// TwoHandlers is the configuration of two backends with one handler each: "runc"
// on the first, the other's handler, named as there, on the second.
func TwoHandlers(first, second *Containerd, handler string) string {
	return fmt.Sprintf(`[backends.%s]
endpoint = %q

[backends.%s]
endpoint = %q

[handlers.runc]
backend = %q

[handlers.%s]
backend = %q
`, first.Name, first.Endpoint(), second.Name, second.Endpoint(), first.Name, handler, second.Name)
}

// Endpoint is the socket as kubelet and crictl take it.
func (p *Proxy) Endpoint() string { return "unix://" + p.Socket }

// Start starts it with the state that it has, and waits until Version answers.
func (p *Proxy) Start(ctx context.Context) error {
	return p.process.start(ctx, func(ctx context.Context) error { return answers(ctx, p.Endpoint()) })
}

// Stop ends it as systemd would.
func (p *Proxy) Stop() error { return p.process.stop() }

// Kill ends it with SIGKILL.
func (p *Proxy) Kill() error { return p.process.kill() }

// Command is one of the proxy's own commands, for this proxy.
func (p *Proxy) Command(ctx context.Context, arguments ...string) *exec.Cmd {
	return exec.CommandContext(ctx, p.process.path, append(arguments, "--config", p.Config)...)
}

// AdminGet asks the proxy's admin socket.
func (p *Proxy) AdminGet(ctx context.Context, path string) ([]byte, error) {
	body, err := p.admin(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

// AdminPost sends it a document and returns the answer as it comes.
func (p *Proxy) AdminPost(ctx context.Context, path string, document any) (io.ReadCloser, error) {
	encoded, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return p.admin(ctx, http.MethodPost, path, bytes.NewReader(encoded))
}

func (p *Proxy) admin(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.Admin)
	}
	// One connection for one request: nothing is left open.
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}
