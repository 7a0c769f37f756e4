package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

const (
	tillImage = "example.test/till:v1"
	// tillGrace is in what its container must be stopped, in seconds; its drain
	// takes a part of it.
	tillGrace = 15
	drainTime = 3 * time.Second
)

// tillHooks are those of the containers named "till": each registers with the
// demo, and drains by itself when its server is asked to.
const tillHooks = `
[[handlers.runc.hooks.post_start]]
name = "register"
http_get = { host = "127.0.0.1", port = %d, path = "/register" }
match = { containers = ["till"] }

[[handlers.runc.hooks.pre_stop]]
name = "drain"
http_get = { port = 8080, path = "/slow/%d" }
timeout = "10s"
match = { containers = ["till"] }
`

// till is the pod that is shown with hooks.
type till struct {
	config     *runtimeapi.PodSandboxConfig
	id         string
	container  string // the last one
	containers uint32 // so far
}

// register is the service that containers register with.
type register struct {
	server *http.Server

	mu   sync.Mutex
	seen map[string]string // delivery ids by container
}

// ServeHTTP takes an entry.
func (r *register) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[request.Header.Get("X-Cri-Proxy-Container-Id")] = request.Header.Get("X-Cri-Proxy-Delivery-Id")
}

func (r *register) of(container string) (delivery string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[container]
}

// openRegister starts the service, and returns the configuration of the hooks.
func (d *demo) openRegister(ctx context.Context) (config string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return "", errors.Join(fmt.Errorf("%s has no port", listener.Addr()), listener.Close())
	}
	d.register = &register{seen: map[string]string{}}
	d.register.server = &http.Server{Handler: d.register, ReadHeaderTimeout: 10 * time.Second}
	go d.register.server.Serve(listener) //nolint:errcheck // It ends with Close, and a hook that nobody answers is seen.
	return fmt.Sprintf(tillHooks, address.Port, int(drainTime.Seconds())), nil
}

// close ends what is not the rig's.
func (d *demo) close() error {
	if d.register == nil {
		return nil
	}
	return d.register.server.Close()
}

// runTill starts a container and looks whether it was registered by the time
// that the start was answered.
func (d *demo) runTill(ctx context.Context) (shown string, err error) {
	if d.till.config, err = d.rig.Pod("till"); err != nil {
		return "", err
	}
	if _, err := d.rig.Push(ctx, tillImage, rig.Image{}); err != nil {
		return "", err
	}
	if d.till.id, err = d.front.RunPod(ctx, "runc", d.till.config); err != nil {
		return "", err
	}
	if _, err := d.front.Pull(ctx, tillImage, d.till.config); err != nil {
		return "", err
	}
	return d.startTill(ctx)
}

func (d *demo) startTill(ctx context.Context) (shown string, err error) {
	config := rig.Container(d.till.config, "till", tillImage)
	config.Metadata.Attempt = d.till.containers
	config.LogPath = fmt.Sprintf("till_%d.log", d.till.containers)
	d.till.containers++
	if d.till.container, err = d.front.Start(ctx, d.till.id, d.till.config, config); err != nil {
		return "", err
	}
	delivery := d.register.of(d.till.container)
	if delivery == "" {
		return "", fmt.Errorf("container %s was not registered when its start was answered", d.till.container)
	}
	return fmt.Sprintf("container %s registered by delivery %s", d.till.container[:13], delivery), nil
}

// drain stops the container.
func (d *demo) drain(ctx context.Context) (string, error) {
	began := time.Now()
	if _, err := d.front.Run(ctx, "stop", "--timeout", strconv.Itoa(tillGrace), d.till.container); err != nil {
		return "", err
	}
	return d.drained(ctx, began, 1)
}

// killDrain stops another one, and kills the proxy in the middle of it.
func (d *demo) killDrain(ctx context.Context) (string, error) {
	if _, err := d.startTill(ctx); err != nil {
		return "", err
	}
	began := time.Now()
	answer := make(chan error, 1)
	go func() {
		_, err := d.front.Run(ctx, "stop", "--timeout", strconv.Itoa(tillGrace), d.till.container)
		answer <- err
	}()
	err := within(ctx, func() error { return d.asked(1) })
	if err = cmp.Or(err, d.proxy.Kill()); err != nil {
		return "", errors.Join(err, <-answer)
	}
	if err := <-answer; err == nil {
		return "", errors.New("the stop was answered though the proxy was killed")
	}
	if _, state, err := d.tillState(ctx); err != nil || state != "CONTAINER_RUNNING" {
		return "", fmt.Errorf("without the proxy the container is %s: %w", state, err)
	}
	if err := d.proxy.Start(ctx); err != nil {
		return "", err
	}
	shown, err := d.drained(ctx, began, 2)
	return "asked again under the same id; " + shown, err
}

// within is for what happens by itself.
func within(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return rig.Poll(ctx, check)
}

// asked looks whether the container's server was asked to drain so many times,
// under one delivery id.
func (d *demo) asked(times int) error {
	log, err := os.ReadFile(filepath.Join(d.till.config.GetLogDirectory(), fmt.Sprintf("till_%d.log", d.till.containers-1)))
	if err != nil {
		return err
	}
	var ids []string
	for line := range strings.Lines(string(log)) {
		if _, id, ok := strings.Cut(line, "GET /slow/"); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	if len(ids) != times || len(slices.Compact(slices.Clone(ids))) != 1 {
		return fmt.Errorf("the container was asked to drain by %q, want one id %d times", ids, times)
	}
	return nil
}

// tillState asks the containerd itself.
func (d *demo) tillState(ctx context.Context) (exitCode int, state string, err error) {
	var answer struct {
		Status struct {
			State    string
			ExitCode int
		}
	}
	err = d.alpha.JSON(ctx, &answer, "inspect", d.till.container)
	return answer.Status.ExitCode, answer.Status.State, err
}

// drained waits for the end of the container, which must be by itself, after the
// whole drain and within the grace period.
func (d *demo) drained(ctx context.Context, began time.Time, requests int) (string, error) {
	var code int
	err := within(ctx, func() (err error) {
		var state string
		if code, state, err = d.tillState(ctx); err == nil && state != "CONTAINER_EXITED" {
			err = fmt.Errorf("container %s is %s", d.till.container, state)
		}
		return err
	})
	took := time.Since(began)
	if err = cmp.Or(err, d.asked(requests)); err != nil {
		return "", err
	}
	if took < drainTime || took > tillGrace*time.Second || code != 0 {
		return "", fmt.Errorf("it ended after %s with %d; its drain takes %s of a grace of %d s", took, code, drainTime, tillGrace)
	}
	return fmt.Sprintf("drained, and ended by itself %.1f s after the stop, with a grace of %d s", took.Seconds(), tillGrace), nil
}

// listHooks prints the records.
func (d *demo) listHooks(ctx context.Context) (string, error) {
	text, err := d.proxy.Command(ctx, "hooks", "list").Output()
	if err != nil {
		return "", fmt.Errorf("cri-proxy hooks list: %w", err)
	}
	fmt.Fprintf(d.out, "\n%s\n", text)
	encoded, err := d.proxy.Command(ctx, "hooks", "list", "-o", "json").Output()
	if err != nil {
		return "", fmt.Errorf("cri-proxy hooks list: %w", err)
	}
	var report struct{ Hooks []struct{ State string } }
	if err := json.Unmarshal(encoded, &report); err != nil {
		return "", err
	}
	delivered := 0
	for _, hook := range report.Hooks {
		if hook.State == "delivered" {
			delivered++
		}
	}
	if delivered != 4 || len(report.Hooks) != delivered {
		return "", fmt.Errorf("%d of %d hooks are delivered, want all 4", delivered, len(report.Hooks))
	}
	return "4 hooks, all delivered", nil
}
