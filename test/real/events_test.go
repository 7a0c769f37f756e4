package real_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testEvents reads one stream while containers of both backends start.
func testEvents(ctx context.Context, t *testing.T, n *node, proxy *rig.Proxy) {
	t.Helper()
	front := crictl(t, n, proxy.Endpoint())
	image := pushImage(ctx, t, n)
	events := filepath.Join(t.TempDir(), "events")
	stop := watch(ctx, t, front, events)
	defer stop()
	for _, handler := range []string{"runc", second} {
		wantStartEvent(ctx, t, n, front, handler, image, events)
	}
}

// watch writes one line for each event to the file.
func watch(ctx context.Context, t *testing.T, c rig.Crictl, file string) (stop func()) {
	t.Helper()
	output, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := c.Command(ctx, "events", "--output", "go-template", "--template", "{{.containerEventType}} {{.containerId}}")
	cmd.Stdout = output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		cancel()
		_ = cmd.Wait() //nolint:errcheck // It is killed: events have no end.
		if err := output.Close(); err != nil {
			t.Error(err)
		}
	}
}

// wantStartEvent starts pods until the start of one's container is among the
// events: nothing tells when crictl has subscribed.
func wantStartEvent(ctx context.Context, t *testing.T, n *node, c rig.Crictl, handler string, image image, file string) {
	t.Helper()
	var err error
	for range 3 {
		pod := startPod(ctx, t, n, c, handler, image)
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = rig.Poll(within, func() error {
			events, err := os.ReadFile(file)
			return errorOr(err, contains(string(events), fmt.Sprintf("CONTAINER_STARTED_EVENT %s\n", pod.container)))
		})
		cancel()
		run(ctx, t, c, "rmp", "--force", pod.pod)
		if err == nil {
			return
		}
	}
	t.Errorf("no event for handler %s: %v", handler, err)
}
