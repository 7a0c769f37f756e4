package backend

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/connectivity"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRestartUnseen: a backend that is restarted, empty, after it was listed and
// before anybody watches it is listed anew.
func TestRestartUnseen(t *testing.T) {
	t.Parallel()
	first, other := fakeruntime.Start(t, fakeruntime.Options{Name: "first"}), fakeruntime.Start(t, fakeruntime.Options{Name: "other"})
	gone := other.AddSandbox(fakeruntime.Sandbox{})
	set := newSet(t, first, other)
	set.Start(t.Context())
	b := set.Get("other")
	if _, known := set.Index.SandboxOwner([]byte(gone)); !known || !b.Up() {
		t.Fatalf("known %v, up %v", known, b.Up())
	}

	other.Stop()
	other.Reset()
	other.Restart()
	limited, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b.conn.Connect()
	for state := b.conn.GetState(); state != connectivity.Ready; state = b.conn.GetState() {
		b.conn.Connect()
		if !b.conn.WaitForStateChange(limited, state) {
			t.Fatalf("not connected again: %s", state)
		}
	}

	watching, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- set.Run(watching) }()
	for {
		if _, known := set.Index.SandboxOwner([]byte(gone)); !known && b.Up() {
			break
		}
		pause(limited, 10*time.Millisecond)
		if limited.Err() != nil {
			t.Error("a sandbox that is gone is still routed")
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func newSet(t *testing.T, runtimes ...*fakeruntime.Runtime) *Set {
	t.Helper()
	cfg := configs.Default()
	cfg.Backends, cfg.Handlers, cfg.DefaultHandler = map[string]configs.Backend{}, map[string]configs.Handler{}, "first"
	for i, name := range []string{"first", "other"} {
		cfg.Backends[name] = configs.Backend{Endpoint: runtimes[i].Endpoint(), ListTimeout: configs.Duration{Duration: 5 * time.Second}}
		cfg.Handlers[name] = configs.Handler{Backend: name}
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	set, err := New(Options{
		Config: &cfg, Catalog: rawcri.NewCatalog(), Table: routing.NewTable(&cfg), Index: routing.NewIndex(), Log: logrus.NewEntry(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	return set
}
