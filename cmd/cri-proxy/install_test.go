package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/install"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestInstallSeesKubelet: install takes the word of the real daemon's metrics that a
// kubelet lists its pods, and does not take its own questions for one.
func TestInstallSeesKubelet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		kubelet bool
	}{{"it lists", true}, {"it does not", false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, "")
			o := installOn(t, p, alpha)
			plan, err := install.NewPlan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.listAsKubelet(ctx, tt.kubelet) }()
			err = plan.Install(t.Context())
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if tt.kubelet && err != nil {
				t.Error(err)
			}
			if !tt.kubelet && (err == nil || !strings.Contains(err.Error(), "does not list its pods through the proxy")) {
				t.Errorf("got the error %v", err)
			}
		})
	}
}

// listAsKubelet lists pods until ctx ends, if it is to.
func (p *proxy) listAsKubelet(ctx context.Context, lists bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !lists {
			continue
		}
		if _, err := p.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// installOn makes a node for install, whose sockets are those of p and alpha.
func installOn(t *testing.T, p *proxy, alpha *fakeruntime.Runtime) install.Options {
	t.Helper()
	root := shortDir(t)
	write := func(name, text string, mode os.FileMode) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/cri-proxy/config.toml", p.config, 0o600)
	write("var/lib/kubelet/config.yaml", "containerRuntimeEndpoint: "+alpha.Endpoint()+"\n", 0o600)
	write("systemctl", "#!/bin/sh\n", 0o700)
	// The sockets are in the temporary directory, not below the node's.
	temporary := filepath.Join(root, os.TempDir())
	if err := os.MkdirAll(filepath.Dir(temporary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.TempDir(), temporary); err != nil {
		t.Fatal(err)
	}
	return install.Options{
		Config: "/etc/cri-proxy/config.toml", Binary: "/usr/bin/cri-proxy", Root: root,
		Systemctl: filepath.Join(root, "systemctl"), Patience: 3 * time.Second,
	}
}
