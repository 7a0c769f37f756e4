package kind_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// recovery is how long a node may take to be ready again behind a unit that was
// started.
const recovery = 15 * time.Second

// testUnit stops, starts, kills and upgrades cri-proxy on a worker with pods of
// every handler. No container is started again.
func testUnit(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	before := c.containers(ctx, t)
	for _, part := range []part{{"stopped-and-started", testStopped}, {"killed", testKilled}, {"upgraded", testUpgraded}} {
		t.Run(part.name, func(t *testing.T) {
			part.run(ctx, t, c)
			c.wantWeb(ctx, t)
			c.noRestarts(ctx, t, before)
		})
	}
}

// testStopped waits until the node is not ready any more, which takes the
// kubelet some thirty seconds to say.
func testStopped(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	c.as(ctx, t, "systemctl stop cri-proxy.socket")
	wait(ctx, t, func() error {
		if c.isReady(ctx, c.Worker()) == nil {
			return errors.New("the node is ready without cri-proxy")
		}
		return nil
	})
	c.as(ctx, t, "systemctl start cri-proxy")
	within(ctx, t, recovery, func() error { return c.isReady(ctx, c.Worker()) })
}

func testKilled(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	before := c.mainPID(ctx, t)
	c.on(ctx, t, c.Worker(), "kill", "-9", before)
	within(ctx, t, recovery, func() error { return c.answersAs(ctx, before) })
	if err := c.isReady(ctx, c.Worker()); err != nil {
		t.Error(err)
	}
}

// testUpgraded puts another binary in the place of the running one, and then
// another configuration.
func testUpgraded(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	before := c.mainPID(ctx, t)
	c.as(ctx, t, "docker cp bin/cri-proxy")
	within(ctx, t, recovery, func() error { return c.answersAs(ctx, before) })
	if err := c.isReady(ctx, c.Worker()); err != nil {
		t.Error(err)
	}
	c.as(ctx, t, "docker cp configs/kind/config.toml")
	within(ctx, t, recovery, func() error {
		text, err := c.On(ctx, c.Worker(), "cri-proxy", "status")
		if err == nil && !regexp.MustCompile(`(?m)^RELOAD +done `).MatchString(text) {
			err = errors.New("no configuration was reloaded:\n" + text)
		}
		return err
	})
}

func (c *cluster) mainPID(ctx context.Context, t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(c.on(ctx, t, c.Worker(), "systemctl", "show", "--property", "MainPID", "--value", "cri-proxy"))
}

// answersAs says why cri-proxy does not answer as another process than before.
func (c *cluster) answersAs(ctx context.Context, before string) error {
	now, err := c.On(ctx, c.Worker(), "systemctl", "show", "--property", "MainPID", "--value", "cri-proxy")
	if err != nil {
		return err
	}
	if strings.TrimSpace(now) == before {
		return errors.New("it is the same process as before")
	}
	_, err = c.On(ctx, c.Worker(), "crictl", "version")
	return err
}
