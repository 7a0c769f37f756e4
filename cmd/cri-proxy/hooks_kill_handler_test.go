package main

import (
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestHandlerGoneInStop: a stop that was accepted goes on though its handler has
// no hooks any more, or is none any more, in the next run. Calls that would go
// past it join it.
func TestHandlerGoneInStop(t *testing.T) {
	t.Parallel()
	const plain = "[handlers.plain]\nbackend = \"alpha\"\n" // As hooked writes it.
	for handler, next := range map[string]string{"without hooks": plain, "taken out": ""} {
		for name, call := range map[string]func(p *proxy, sandbox, container string) error{
			"StopContainer":    func(p *proxy, _, container string) error { return p.stopContainer(container, 60) },
			"StopContainer id": func(p *proxy, _, container string) error { return p.stopContainer(container[:13], 60) },
			"RemoveContainer": func(p *proxy, _, container string) error {
				_, err := p.runtime.RemoveContainer(p.t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: container})
				return err
			},
			"StopPodSandbox": func(p *proxy, sandbox, _ string) error {
				_, err := p.runtime.StopPodSandbox(p.t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox})
				return err
			},
			"RemovePodSandbox": func(p *proxy, sandbox, _ string) error {
				_, err := p.runtime.RemovePodSandbox(p.t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox})
				return err
			},
		} {
			t.Run(name+" of a handler "+handler, func(t *testing.T) {
				t.Parallel()
				hold := make(chan struct{})
				r := receive(t, hold)
				hooks := strings.ReplaceAll(hook("pre_stop", r.action(), `timeout = "1m"`), "runc", "plain")
				p, alpha := hooked(t, hooks)
				sandbox, container := p.started("plain")
				p.interrupted(r, container, func() {
					p.config = strings.Replace(strings.Replace(p.config, hooks, "", 1), plain, next, 1)
				})
				method, _, _ := strings.Cut(name, " ")
				second := async(func() error { return call(p, sandbox, container) })
				p.joined(method, second)
				close(hold)
				if err := <-second; err != nil {
					t.Error(err)
				}
				p.delivery(journal.PreStop, journal.Delivered)
				r.none()
				stoppedBefore(t, alpha, container, method)
			})
		}
	}
}

// interrupted ends the proxy in the PreStop of a container, and runs it again with
// what change makes of its configuration.
func (p *proxy) interrupted(r *receiver, container string, change func()) {
	p.t.Helper()
	first := async(func() error { return p.stopContainer(container, 60) })
	before := r.next()
	p.stop()
	if err := <-first; err == nil {
		p.t.Error("a stop that is not finished is answered well")
	}
	change()
	p.start()
	if a, b := before.Get("X-Cri-Proxy-Delivery-Id"), r.next().Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
		p.t.Errorf("delivery %q, then %q", a, b)
	}
}

// joined waits until the only call of a method has come in, and fails the test if
// it does not wait there.
func (p *proxy) joined(method string, call <-chan error) {
	p.t.Helper()
	eventually(p.t, "the call has come in", func() bool {
		return len(call) > 0 || p.scrape()[fmt.Sprintf("cri_proxy_requests_in_flight{method=%q}", method)] == 1
	})
	pending(p.t, method, call)
}

// stoppedBefore fails the test unless the runtime was asked to stop a container
// once, and for the only call of a method not before that.
func stoppedBefore(t *testing.T, r *fakeruntime.Runtime, container, method string) {
	t.Helper()
	stops, calls := r.Calls("StopContainer"), r.Calls(method)
	if len(stops) != 1 || isRunning(t, r, container) {
		t.Fatalf("the runtime was asked to stop %d times, the container runs: %v", len(stops), isRunning(t, r, container))
	}
	if len(calls) != 1 || calls[0].Received.Before(stops[0].Received) {
		t.Errorf("%d times %s, the first at %v, the stop at %v", len(calls), method, calls[0].Received, stops[0].Received)
	}
}
