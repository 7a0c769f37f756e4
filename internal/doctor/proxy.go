package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/admin"
)

// oldHook is the age at which a hook that is not delivered is looked at: no grace
// period is that long by accident.
const oldHook = time.Hour

// proxy is what the running proxy says of itself.
type proxy struct {
	running bool
	status  struct {
		Version       string `json:"version"`
		Ready         bool   `json:"ready"`
		NotReady      string `json:"notReady"`
		StateSetAside string `json:"stateSetAside"`
		Backends      []struct {
			Name     string `json:"name"`
			Up       bool   `json:"up"`
			Unusable string `json:"unusable"`
		} `json:"backends"`
	}
	hooks struct {
		Hooks []struct {
			ID       string    `json:"id"`
			Finished time.Time `json:"finished"`
			Accepted time.Time `json:"accepted"`
		} `json:"hooks"`
		Unreadable int `json:"unreadable"`
	}
}

// askProxy reads one answer of the admin socket.
func (n *node) askProxy(ctx context.Context, path string, answer any) error {
	file, err := configs.SocketPath(n.cfg.Admin.Listen)
	if err != nil {
		return err
	}
	body, err := admin.Get(ctx, n.path(file), path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("the answer to GET %s: %w", path, err)
	}
	return nil
}

func (n *node) checkProxy(ctx context.Context) {
	c := n.about("proxy", "")
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	err := n.askProxy(ctx, "/v1/status", &n.proxy.status)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.skip("%v", err)
		return
	case errors.Is(err, admin.ErrNotRunning):
		c.problem("systemctl enable --now cri-proxy.socket cri-proxy.service, and read journalctl -u cri-proxy if it ends", "%v", err)
		return
	case err != nil:
		c.problem("read journalctl -u cri-proxy", "%v", err)
		return
	}
	n.proxy.running = true
	s := n.proxy.status
	if !s.Ready {
		c.problem("mend the default backend: no kubelet can start before it answers", "it runs but is not ready: %s", s.NotReady)
	} else if err := n.askThrough(ctx); err != nil {
		c.problem("read journalctl -u cri-proxy", "it runs, but CRI through it fails: %v", err)
	} else {
		c.ok("version %s runs and is ready", s.Version)
	}
	if n.Version != "" && s.Version != n.Version {
		c.warn("systemctl restart cri-proxy: pods live on", "it runs version %s, and the installed one is %s", s.Version, n.Version)
	}
	if s.StateSetAside != "" {
		c.warn("see that no hook was lost: cri-proxy hooks list; then delete that file", "its state file was damaged and is now %s", s.StateSetAside)
	}
	for _, b := range s.Backends {
		if b.Up && b.Unusable != "" {
			n.about("proxy", b.Name).problem("see the findings on that backend", "the running proxy gives it no new pods: %s", b.Unusable)
		}
	}
}

// askThrough makes the call that a kubelet begins with.
func (n *node) askThrough(ctx context.Context) error {
	return n.call(ctx, n.cfg.Server.Listen, func(api runtimeapi.RuntimeServiceClient, _ runtimeapi.ImageServiceClient) error {
		_, err := api.Version(ctx, &runtimeapi.VersionRequest{Version: "0.1.0"})
		return plain(err)
	})
}

func (n *node) checkHooks(ctx context.Context) {
	c := n.about("hooks", "")
	if !n.proxy.running {
		c.skip("the proxy cannot be asked")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	if err := n.askProxy(ctx, "/v1/hooks", &n.proxy.hooks); err != nil {
		c.skip("%v", err)
		return
	}
	pending, old := 0, 0
	for _, h := range n.proxy.hooks.Hooks {
		if !h.Finished.IsZero() {
			continue
		}
		pending++
		if time.Since(h.Accepted) > oldHook {
			old++
		}
	}
	if unreadable := n.proxy.hooks.Unreadable; unreadable > 0 {
		c.warn("run the version that wrote them until they are delivered", "%d records are another version's and are not delivered", unreadable)
	}
	if old > 0 {
		c.warn("cri-proxy hooks list shows them; retry or drop them", "%d of %d deliveries have waited for more than %s", old, pending, oldHook)
		return
	}
	c.ok("%d deliveries are pending", pending)
}
