package real_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// plugged is a handler with a credential provider plugin.
type plugged struct {
	*stores

	plugin *rig.Plugin
	k      *rig.Kubelet
	pod    *rig.KubeletPod
}

// testPlugin: a credential provider, a real program, is called where its images
// match, its answers serve as long as they say, and nothing that it does wrong
// harms more than the pulls that need it.
func testPlugin(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	plugin, err := s.Plugin("red", "*.test")
	if err != nil {
		t.Fatal(err)
	}
	proxy := s.proxy(ctx, t, "plugin", map[string]string{
		"runc": fmt.Sprintf("credential_providers = %q\ncredential_provider_bin_dir = %q", plugin.Config, plugin.BinDir),
	})
	k := kubelet(t, s.node, proxy.Endpoint())
	p := &plugged{s, plugin, k, sandbox(ctx, t, k, "runc")}
	p.testWrong(ctx, t)
	p.testCached(ctx, t)
	p.testHangs(ctx, t)
	p.testOtherHandler(ctx, t)
}

// pull pulls an image of the test's own from the tenant's registry.
func (p *plugged) pull(ctx context.Context, t *testing.T, repository string) error {
	t.Helper()
	_, err := p.k.Pull(ctx, p.pod, private(ctx, t, p.red, repository).name)
	return err
}

func (p *plugged) wantCalls(t *testing.T, what string, wanted int) []string {
	t.Helper()
	calls, err := p.plugin.Calls()
	if err != nil {
		t.Fatal(err)
	}
	if len(calls) != wanted {
		t.Errorf("%s: the plugin was called %d times, want %d: %q", what, len(calls), wanted, calls)
	}
	return calls
}

// testWrong: a plugin that fails or prints rubbish is as good as none. What it
// prints may hold a secret all the same.
func (p *plugged) testWrong(ctx context.Context, t *testing.T) {
	t.Helper()
	wantRefused(t, p.pull(ctx, t, "plugin/wrong"))
	calls := p.wantCalls(t, "failing", 1)
	var request struct{ Kind, APIVersion, Image string }
	if err := json.Unmarshal([]byte(calls[0]), &request); err != nil {
		t.Fatal(err)
	}
	if request.Kind != "CredentialProviderRequest" || request.APIVersion != "credentialprovider.kubelet.k8s.io/v1" || request.Image != "red.test/plugin/wrong" {
		t.Errorf("the plugin was sent %+v", request)
	}
	for n, rubbish := range []string{"{rubbish " + p.Secret("rubbish"), `{"kind":"Other","auth":{"*":{"username":"u","password":"` + p.Secret("u") + `"}}}`, ""} {
		if err := p.plugin.Answer(rubbish); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, p.pull(ctx, t, "plugin/wrong"))
		p.wantCalls(t, "rubbish", n+2)
	}
}

// testCached counts calls over pulls of the same and of other images.
func (p *plugged) testCached(ctx context.Context, t *testing.T) {
	t.Helper()
	login := rig.Login{Key: "red.test", User: p.red.User, Password: p.red.Password}
	const before = 4
	calls := before
	for _, c := range []struct {
		key, duration, image string
		called               bool
	}{
		{"Image", "0s", "plugin/a", true},
		{"Image", "0s", "plugin/a", true},
		{"Image", "1h", "plugin/b", true},
		{"Image", "1h", "plugin/b", false},
		{"Registry", "1h", "plugin/c", true},
		{"Registry", "1h", "plugin/d", false},
	} {
		if err := p.plugin.Login(c.key, c.duration, login); err != nil {
			t.Fatal(err)
		}
		if err := p.pull(ctx, t, c.image); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		if c.called {
			calls++
		}
		p.wantCalls(t, fmt.Sprintf("%+v", c), calls)
	}
	p.testExpires(ctx, t, calls)
}

// testExpires pulls from the other registry until the answer for it is asked
// for a second time.
func (p *plugged) testExpires(ctx context.Context, t *testing.T, calls int) {
	t.Helper()
	const duration = time.Second
	if err := p.plugin.Login("Image", duration.String(), rig.Login{Key: "blue.test", User: p.blue.User, Password: p.blue.Password}); err != nil {
		t.Fatal(err)
	}
	image, pulls, begin := private(ctx, t, p.blue, "plugin/expires"), 0, time.Now()
	waitFor(ctx, t, func() error {
		if _, err := p.k.Pull(ctx, p.pod, image.name); err != nil {
			t.Fatal(err)
		}
		pulls++
		made, err := p.plugin.Calls()
		if err == nil && len(made) < calls+2 {
			err = fmt.Errorf("%d calls after %d pulls", len(made), pulls)
		}
		return err
	})
	if took := time.Since(begin); took < duration {
		t.Errorf("an answer good for %s was asked for again after %s", duration, took)
	}
	if pulls < 3 {
		t.Errorf("the answer changed after %d pulls: nothing was seen to be kept", pulls)
	}
}

// testHangs: a pull ends with its caller though the plugin hangs, and other
// handlers' pulls go on.
func (p *plugged) testHangs(ctx context.Context, t *testing.T) {
	t.Helper()
	hangs := private(ctx, t, p.blue, "plugin/hangs")
	if err := os.Remove(p.plugin.Path()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(p.plugin.Path(), 0o600); err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := p.k.Images.PullImage(limited, pullRequest(p.pod, hangs.name))
		ended <- err
	}()
	start(ctx, t, p.k, sandbox(ctx, t, p.k, second), rig.KubeletContainer{Image: pushImage(ctx, t, p.node).name}, true)
	if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the pull whose plugin hangs ended with %v, want its caller's deadline", err)
	}
	if err := p.plugin.Login("Image", "0s", rig.Login{Key: "blue.test", User: p.blue.User, Password: p.blue.Password}); err != nil {
		t.Fatal(err)
	}
}

// testOtherHandler: the credentials that the plugin gave serve no other handler.
func (p *plugged) testOtherHandler(ctx context.Context, t *testing.T) {
	t.Helper()
	calls, err := p.plugin.Calls()
	if err != nil {
		t.Fatal(err)
	}
	image := private(ctx, t, p.red, "plugin/b")
	_, err = p.k.Pull(ctx, sandbox(ctx, t, p.k, second), image.name)
	wantRefused(t, err)
	p.wantCalls(t, "another handler", len(calls))
}
