package install

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/admin"
)

const watchEvery = 200 * time.Millisecond

// until tries again until it succeeds or patience ends.
func (o Options) until(ctx context.Context, try func(context.Context) error) error {
	ends := time.Now().Add(o.Patience)
	ctx, cancel := context.WithDeadline(ctx, ends)
	defer cancel()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		// An error of the end itself says nothing. Who is asked sees the end as well, and
		// may say so before it has come here.
		if last == nil || ctx.Err() == nil && time.Until(ends) > watchEvery/4 {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", o.Patience, last)
		case <-tick.C:
		}
	}
}

// waitProxy returns once CRI is answered through the proxy as a kubelet needs it.
func (p *Plan) waitProxy(ctx context.Context) error { return p.o.until(ctx, p.askProxy) }

func (p *Plan) askProxy(ctx context.Context) error {
	return p.o.call(ctx, p.cfg.Server.Listen, func(ctx context.Context, api runtimeapi.RuntimeServiceClient) error {
		if _, err := api.Version(ctx, &runtimeapi.VersionRequest{Version: "0.1.0"}); err != nil {
			return err
		}
		status, err := api.Status(ctx, &runtimeapi.StatusRequest{})
		if err != nil {
			return err
		}
		for _, c := range status.GetStatus().GetConditions() {
			if c.GetType() == runtimeapi.RuntimeReady && !c.GetStatus() {
				return fmt.Errorf("the runtime is not ready: %s", c.GetMessage())
			}
		}
		return nil
	})
}

// watchNode returns once the kubelet lists its pods through the proxy, which it
// does every second: that it was started says little.
func (p *Plan) watchNode(ctx context.Context) error {
	before, err := p.lists(ctx)
	if err != nil {
		return err
	}
	return p.o.until(ctx, func(ctx context.Context) error {
		running, err := p.o.systemctlSays(ctx, "is-active", "--quiet", p.o.KubeletUnit)
		now, listErr := p.lists(ctx)
		switch {
		case err != nil || listErr != nil:
			return errors.Join(err, listErr)
		case !running:
			return fmt.Errorf("%s is not active; journalctl -u %[1]s says why", p.o.KubeletUnit)
		case now < before+2:
			return errors.New("the kubelet does not list its pods through the proxy")
		}
		return p.askProxy(ctx)
	})
}

// lists is how often pods were listed through the proxy, by its metrics.
func (p *Plan) lists(ctx context.Context) (total float64, err error) {
	socket, err := configs.SocketPath(p.cfg.Admin.Listen)
	if err != nil {
		return 0, err
	}
	text, err := admin.Get(ctx, p.o.path(socket), "/metrics")
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "cri_proxy_requests_total{") || !strings.Contains(line, `code="OK"`) ||
			!strings.Contains(line, `method="ListPodSandbox"`) && !strings.Contains(line, `method="StreamPodSandboxes"`) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		total += value
	}
	return total, lines.Err()
}
