package serviceenv

import (
	"context"
	"errors"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// follow runs the rig until the test ends, and checks what it has logged by then.
func (r *rig) follow() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		for _, e := range r.logged.AllEntries() {
			if text, err := e.String(); err != nil || strings.Contains(text, token) {
				r.t.Errorf("the token is in the log: %s, %v", text, err)
			}
		}
	})
}

// eventuallyWeb waits for the address of the Service web.
func (r *rig) eventuallyWeb(want string) {
	r.t.Helper()
	eventually(r.t, "web is at "+want, func() bool { return r.host("shop", webHost) == want })
}

// TestClusterFollowed: what changes at the API server is known, also what changed
// while a watch was broken; in every form that an API server may speak.
func TestClusterFollowed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		contentType  string
		streamsLists bool
	}{
		"protobuf":               {runtime.ContentTypeProtobuf, true},
		"protobuf, older server": {runtime.ContentTypeProtobuf, false},
		"JSON":                   {runtime.ContentTypeJSON, true},
		"JSON, older server":     {runtime.ContentTypeJSON, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAPIServer(t, tt.streamsLists)
			a.put(service("default", "kubernetes", "10.0.0.1", 443))
			a.put(service("shop", "web", "10.1.0.1", 80))
			a.start()
			r := newRig(t, Options{Config: a.config(tt.contentType)})
			r.follow()
			r.eventuallyWeb("10.1.0.1")
			if got := r.host("other", "KUBERNETES_SERVICE_HOST"); got != "10.0.0.1" || r.host("other", webHost) != "" {
				t.Errorf("another namespace: %q", got)
			}
			a.put(service("shop", "web", "10.1.0.2", 80))
			r.eventuallyWeb("10.1.0.2")
			a.put(service("shop", "web", "gone"))
			r.eventuallyWeb("")
			if n := r.metric("cri_proxy_service_cache_errors_total"); n != 0 || r.warnings() != 0 {
				t.Errorf("%v failures and %d warnings while all was well", n, r.warnings())
			}
			watches := a.count("watch")
			a.breakWatches()
			a.put(service("shop", "web", "10.1.0.3", 80))
			r.eventuallyWeb("10.1.0.3")
			if a.count("watch") == watches {
				t.Error("the watch was not broken")
			}
			if lists := a.count("list"); (lists == 0) != tt.streamsLists {
				t.Errorf("%d lists", lists)
			}
			if a.accepted != tt.contentType {
				t.Errorf("it asked for %q", a.accepted)
			}
			if s := *r.State(); s != (State{Source: "kubernetes", Synced: true, Services: 2}) {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// TestClusterAway: an API server that is away, and one that refuses, keep
// containers from starting until they answer, and not after that.
func TestClusterAway(t *testing.T) {
	t.Parallel()
	a := newAPIServer(t, true)
	r := newRig(t, Options{Config: a.config(runtime.ContentTypeProtobuf)})
	pod := Pod{Handler: "on", Namespace: "shop"}
	if _, err := r.Missing(pod, map[string]bool{}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "awaited") {
		t.Errorf("before it was asked: %v", err)
	}
	comeBack := a.listenAgain()
	r.follow()
	unavailable := func(why string) {
		t.Helper()
		eventually(t, why, func() bool {
			_, err := r.Missing(pod, map[string]bool{})
			return errors.Is(err, ErrUnavailable) && strings.Contains(err.Error(), why)
		})
		if s := r.State(); s.Synced || s.Error == "" || r.metric("cri_proxy_service_cache_synced") != 0 || r.metric("cri_proxy_service_cache_errors_total") == 0 {
			t.Errorf("%s: %+v", why, s)
		}
	}
	unavailable("connection refused")
	a.refuseWith(http.StatusUnauthorized)
	a.put(service("shop", "web", "10.1.0.1", 80))
	comeBack()
	unavailable("Unauthorized")
	a.refuseWith(0)
	r.eventuallyWeb("10.1.0.1")
	a.refuseWith(http.StatusUnauthorized)
	a.breakWatches()
	eventually(t, "the failure is known", func() bool { return r.State().Error != "" })
	if got := r.host("shop", webHost); got != "10.1.0.1" || !r.State().Synced || r.metric("cri_proxy_service_cache_synced") != 1 {
		t.Errorf("while it refuses again: %q, %+v", got, r.State())
	}
	a.put(service("shop", "web", "10.1.0.2", 80))
	a.refuseWith(0)
	r.eventuallyWeb("10.1.0.2")
	eventually(t, "the recovery is known", func() bool { return r.State().Error == "" })
	told := map[logrus.Level]int{}
	for _, e := range r.logged.AllEntries() {
		told[e.Level]++
	}
	// Refused connection, refused request, and that once more after it went well.
	if told[logrus.WarnLevel] != 3 || told[logrus.InfoLevel] != 2 {
		t.Errorf("logged: %v", told)
	}
}

// TestClusterEndsAtOnce: nobody waits for a pause between two tries.
func TestClusterEndsAtOnce(t *testing.T) {
	t.Parallel()
	a := newAPIServer(t, true)
	if err := a.server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Options{Config: a.config(runtime.ContentTypeProtobuf)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	// Each try is two requests, and the pause after the third is longer than two seconds.
	eventually(t, "three tries", func() bool { return r.metric("cri_proxy_service_cache_errors_total") >= 5 })
	began := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(began) > time.Second {
		t.Errorf("%v, after %s", err, time.Since(began))
	}
}

// TestClusterClosesConnections: none is left open when the source is followed no
// longer.
func TestClusterClosesConnections(t *testing.T) {
	t.Parallel()
	a := newAPIServer(t, true)
	var open atomic.Int32
	a.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		case http.StateActive, http.StateIdle, http.StateHijacked:
		}
	}
	a.refuseWith(http.StatusUnauthorized)
	a.start()
	r := newRig(t, Options{Config: a.config(runtime.ContentTypeProtobuf)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	eventually(t, "it was asked", func() bool { return r.State().Error != "" && open.Load() > 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "all is closed", func() bool { return open.Load() == 0 })
}

// TestClusterKeepsLittle: nothing but what the variables need is kept.
func TestClusterKeepsLittle(t *testing.T) {
	t.Parallel()
	a := newAPIServer(t, true)
	s := service("shop", "web", "10.1.0.1", 80)
	s.Spec.Selector, s.Spec.ClusterIPs = map[string]string{"app": "web"}, []string{"10.1.0.1"}
	s.Spec.Ports[0].NodePort = 30080
	a.put(s)
	a.start()
	r := newRig(t, Options{Config: a.config(runtime.ContentTypeProtobuf)})
	r.follow()
	r.eventuallyWeb("10.1.0.1")
	in, err := r.source.services()
	if err != nil {
		t.Fatal(err)
	}
	want := []*corev1.Service{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.1.0.1", Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}},
	}}
	if diff := cmp.Diff(want, in("shop")); diff != "" {
		t.Errorf("-want +kept:\n%s", diff)
	}
	if trimmed, err := trim("gone"); err != nil || !reflect.DeepEqual(trimmed, "gone") {
		t.Errorf("something else: %v, %v", trimmed, err)
	}
}

func TestClusterRefusesConfig(t *testing.T) {
	t.Parallel()
	a := newAPIServer(t, true)
	config := a.config(runtime.ContentTypeJSON)
	config.CAFile, config.Host = "/not/there", "https://127.0.0.1"
	if _, err := newCluster(config, nil); err == nil || !strings.Contains(err.Error(), "/not/there") {
		t.Errorf("got %v", err)
	}
	if err := a.server.Listener.Close(); err != nil {
		t.Error(err)
	}
}
