package hooks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// apiServer is one whose requests a test answers.
func apiServer(t *testing.T, answer http.HandlerFunc) *rest.Config {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

// sent is what an API server is told of an Event.
type sent struct {
	Method, Path, Pod, UID, Reason, Message, Type, From, Host string
	Count                                                     int32
}

func readEvent(t *testing.T, r *http.Request) (corev1.Event, sent) {
	t.Helper()
	var event corev1.Event
	if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
		t.Error(err)
	}
	return event, sent{
		r.Method, r.URL.Path, event.InvolvedObject.Name, string(event.InvolvedObject.UID), event.Reason, event.Message,
		event.Type, event.Source.Component, event.Source.Host, event.Count,
	}
}

func startEvents(t *testing.T, api *rest.Config, log *logrus.Entry) *Events {
	t.Helper()
	events, err := StartEvents(t.Context(), api, "node-1", log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Close)
	return events
}

func receiveOne[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within ten seconds")
		panic("not reached")
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	arrived := make(chan sent, 10)
	api := apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		event, got := readEvent(t, r)
		arrived <- got
		w.Header().Set("Content-Type", "application/json")
		if event.Name == "" { // A patch has the changes only.
			event.Name = r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		}
		event.APIVersion, event.Kind = "v1", "Event"
		if err := json.NewEncoder(w).Encode(event); err != nil {
			t.Error(err)
		}
	})
	log, _ := logTo(t)
	events := startEvents(t, api, log)
	pod := journal.Pod{Namespace: "shop", Name: "web-0", UID: "u-1"}
	events.Warn(journal.Pod{Namespace: "shop", Name: "by-hand"}, "FailedPreStopHook", "no UID: nothing in Kubernetes")
	events.Warn(pod, "FailedPreStopHook", "drain failed")
	want := sent{
		"POST", "/api/v1/namespaces/shop/events", "web-0", "u-1", "FailedPreStopHook", "drain failed",
		corev1.EventTypeWarning, "cri-proxy", "node-1", 1,
	}
	if diff := cmp.Diff(want, receiveOne(t, arrived)); diff != "" {
		t.Errorf("the first Event (-want +got):\n%s", diff)
	}
	events.Warn(pod, "FailedPreStopHook", "drain failed")
	if again := receiveOne(t, arrived); again.Method != http.MethodPatch || again.Count != 2 {
		t.Errorf("a repeat: %+v, want the count of the first to be 2", again)
	}
}

// An API server that refuses or hangs keeps nobody waiting, and Close ends the wait for it.
func TestEventsNeverWait(t *testing.T) {
	t.Parallel()
	held := make(chan struct{}, 2000)
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			held <- struct{}{}
			if _, err := io.Copy(io.Discard, r.Body); err != nil { // Or the server would not see the end of the request.
				t.Error(err)
			}
			<-r.Context().Done()
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"breaks": func(w http.ResponseWriter, _ *http.Request) {
			if hijacker, ok := w.(http.Hijacker); ok {
				if conn, _, err := hijacker.Hijack(); err == nil {
					err = conn.Close()
					if err != nil {
						t.Error(err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, _ := logTo(t)
			events := startEvents(t, apiServer(t, answer), log)
			began := time.Now()
			for i := range 5000 { // Many more than may wait, each about a pod of its own.
				events.Warn(journal.Pod{Namespace: "shop", Name: fmt.Sprint("p", i), UID: fmt.Sprint("u", i)}, "FailedPostStartHook", "register failed")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("5,000 Events took their caller %s", took)
			}
			if name == "hangs" {
				receiveOne(t, held)
			}
		})
	}
}

// What the API server has against an Event is said, once for each.
func TestEventsRefused(t *testing.T) {
	t.Parallel()
	api := apiServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		if err := json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: http.StatusForbidden,
			Reason: metav1.StatusReasonForbidden, Message: "events is forbidden",
		}); err != nil {
			t.Error(err)
		}
	})
	log, lines := logTo(t)
	startEvents(t, api, log).Warn(journal.Pod{Namespace: "shop", Name: "web-0", UID: "u-1"}, "FailedPreStopHook", "drain failed")
	if line := receiveOne(t, lines); line.Level != logrus.ErrorLevel || !strings.Contains(fmt.Sprint(line.Data, line.Message), "events is forbidden") {
		t.Errorf("the log says %s %q %v", line.Level, line.Message, line.Data)
	}
}

// logTo is a log whose lines a test reads.
func logTo(t *testing.T) (*logrus.Entry, <-chan *logrus.Entry) {
	t.Helper()
	lines := make(lineHook, 100)
	logger := logrus.New()
	logger.SetOutput(io.Discard) // What sends Events may log a moment longer than the test runs.
	logger.AddHook(lines)
	return logrus.NewEntry(logger), lines
}

type lineHook chan *logrus.Entry

func (lineHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h lineHook) Fire(line *logrus.Entry) error {
	select {
	case h <- line:
	default:
	}
	return nil
}
