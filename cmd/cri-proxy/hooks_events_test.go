package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// eventAPI is an API server that takes Events, each after hold is closed; nil is
// at once.
func eventAPI(t *testing.T, hold <-chan struct{}) (kubeconfig string, arrived <-chan *corev1.Event) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	codecs, events := serializer.NewCodecFactory(scheme), make(chan *corev1.Event, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/events") {
			http.NotFound(w, r) // Services, above all.
			return
		}
		var event corev1.Event
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if _, _, err := codecs.UniversalDeserializer().Decode(body, nil, &event); err != nil {
			t.Errorf("%v: %q", err, body)
		}
		events <- &event
		if hold != nil {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		if _, err := w.Write(body); err != nil && hold == nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return kubeconfigFor(t, server.URL), events
}

func nextEvent(t *testing.T, events <-chan *corev1.Event) *corev1.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no Event within ten seconds")
		return nil
	}
}

// Hooks that fail are told to the owner of the pod, by the API server.
func TestHookEvents(t *testing.T) {
	t.Parallel()
	kubeconfig, events := eventAPI(t, nil)
	// With a file of Services the API server is for Events alone.
	services := writeFile(t, "services.yaml", servicesAt("10.0.0.7"))
	p, _ := hookedWith(t, fmt.Sprintf("kubernetes.kubeconfig = %q\n%s\n", kubeconfig, fromFile(services)),
		hook("post_start", command("exit", "3"), `on_failure = "ignore"`)+hook("pre_stop", command("exit", "4")))
	_, container := p.started("runc")
	checkEvent(t, nextEvent(t, events), "FailedPostStartHook", `PostStart hook "post_start" of container "c" failed: exit code 3`)
	if err := p.stopContainer(container, 10); err != nil {
		t.Fatal(err)
	}
	checkEvent(t, nextEvent(t, events), "FailedPreStopHook", `PreStop hook "pre_stop" of container "c" failed: exit code 4`)
}

func checkEvent(t *testing.T, e *corev1.Event, reason, message string) {
	t.Helper()
	pod := e.InvolvedObject
	if e.Reason != reason || e.Message != message || e.Type != corev1.EventTypeWarning {
		t.Errorf("the Event is %s %s %q, want %s %q", e.Type, e.Reason, e.Message, reason, message)
	}
	if pod.Kind != "Pod" || pod.Name == "" || pod.UID == "" || e.Namespace != pod.Namespace || e.Source.Component != "cri-proxy" || e.Source.Host == "" {
		t.Errorf("the Event in %q is on %+v, from %+v", e.Namespace, pod, e.Source)
	}
}

// An API server that hangs delays no stop.
func TestHookEventsNeverWait(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	defer close(hold)
	kubeconfig, events := eventAPI(t, hold)
	p, alpha := hookedWith(t, fmt.Sprintf("kubernetes.kubeconfig = %q\n", kubeconfig), hook("pre_stop", command("exit", "4")))
	sandbox := p.run("runc", "runc")
	for _, name := range []string{"a", "b", "c"} {
		container := p.create(sandbox, "runc", name)
		if err := p.startContainer(container); err != nil {
			t.Fatal(err)
		}
		if err := p.stopContainer(container, 10); err != nil || isRunning(t, alpha, container) {
			t.Errorf("the stop: %v", err)
		}
		p.delivery(journal.PreStop, journal.Failed)
	}
	nextEvent(t, events) // It is there, and has no answer yet.
}
