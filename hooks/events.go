package hooks

import (
	"context"
	"fmt"
	"time"

	"github.com/bombsimon/logrusr/v4"
	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// Events puts Kubernetes Events on pods. It never keeps its caller waiting: up to
// a thousand Events wait for the API server, each is tried again for two minutes,
// and those beyond are lost; the log has them all. Repeats about one pod are
// counted in one Event and then held back, as for every Kubernetes component.
type Events struct {
	client      *rest.RESTClient
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	cancel      context.CancelFunc
}

// eventTimeout bounds one request, so that one which hangs is tried again.
const eventTimeout = 10 * time.Second

// StartEvents begins to send; Close ends it. It does not connect before the first
// Event. node is what Events give as their host.
func StartEvents(ctx context.Context, config *rest.Config, node string, log *logrus.Entry) (*Events, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion, config.Timeout = "/api", &corev1.SchemeGroupVersion, eventTimeout
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("a client for the API server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	logger := logrusr.New(log)
	// Its own context ends with Close: a broadcaster waits for the end of one that it is given.
	broadcaster := record.NewBroadcaster(record.WithContext(logr.NewContext(ctx, logger)))
	broadcaster.StartRecordingToSink(eventSink{client, func(r *rest.Request) (*corev1.Event, error) {
		stored := &corev1.Event{}
		return stored, r.Do(ctx).Into(stored)
	}})
	recorder := broadcaster.NewRecorder(scheme, corev1.EventSource{Component: "cri-proxy", Host: node})
	return &Events{client, broadcaster, recorder.WithLogger(logger), cancel}, nil
}

// Warn puts a Warning on a pod. One that has no name or no UID is not Kubernetes'.
func (e *Events) Warn(pod journal.Pod, reason, message string) {
	if pod.Namespace == "" || pod.Name == "" || pod.UID == "" {
		return
	}
	e.recorder.Event(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID),
	}, corev1.EventTypeWarning, reason, message)
}

// Close drops the Events that are not sent yet. What sends them is client-go's; it
// ends a moment later.
func (e *Events) Close() {
	e.cancel()
	e.broadcaster.Shutdown()
	utilnet.CloseIdleConnectionsFor(e.client.Client.Transport)
}

// eventSink is client-go's own for Events, whose package also has the types of
// all other API groups: several megabytes of memory that nothing here uses.
type eventSink struct {
	client rest.Interface
	do     func(*rest.Request) (*corev1.Event, error) // Until Close.
}

// Create sends a new Event.
func (s eventSink) Create(event *corev1.Event) (*corev1.Event, error) {
	return s.do(s.client.Post().Namespace(event.Namespace).Resource("events").Body(event))
}

// Update replaces an Event.
func (s eventSink) Update(event *corev1.Event) (*corev1.Event, error) {
	return s.do(s.client.Put().Namespace(event.Namespace).Resource("events").Name(event.Name).Body(event))
}

// Patch adds to the count of an Event.
func (s eventSink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.do(s.client.Patch(types.StrategicMergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(data))
}
