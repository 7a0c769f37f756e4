package serviceenv

import (
	"cmp"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
)

const token = "not-for-any-log"

// apiServer serves Services as an API server does, in JSON or protobuf.
type apiServer struct {
	t      *testing.T
	server *httptest.Server
	// streamsLists is whether it can send what there is as the start of a watch.
	streamsLists bool

	mu       sync.Mutex
	services map[string]*corev1.Service
	events   []watch.Event // The resource version is their number.
	changed  chan struct{} // Closed with the next event.
	broken   chan struct{} // Closed to break all watches.
	refuse   int           // The status of every answer, if not 0.
	asked    map[string]int
	accepted string
}

func newAPIServer(t *testing.T, streamsLists bool) *apiServer {
	t.Helper()
	a := &apiServer{
		t: t, streamsLists: streamsLists, services: map[string]*corev1.Service{},
		changed: make(chan struct{}), broken: make(chan struct{}), asked: map[string]int{},
	}
	a.server = httptest.NewUnstartedServer(a)
	return a
}

// start lets it listen on the address that config names.
func (a *apiServer) start() {
	a.server.Start()
	a.t.Cleanup(func() {
		a.breakWatches()
		a.server.Close()
	})
}

func (a *apiServer) config(contentType string) *rest.Config {
	return &rest.Config{
		Host: "http://" + a.server.Listener.Addr().String(), BearerToken: token,
		ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType},
	}
}

// put adds or changes a Service, or removes it when its address is "gone".
func (a *apiServer) put(s *corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key, kind := s.Namespace+"/"+s.Name, watch.Added
	if a.services[key] != nil {
		kind = watch.Modified
	}
	s.ResourceVersion = strconv.Itoa(len(a.events) + 1)
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	s.Labels, s.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
	a.services[key] = s
	if s.Spec.ClusterIP == "gone" {
		kind = watch.Deleted
		delete(a.services, key)
	}
	a.events = append(a.events, watch.Event{Type: kind, Object: s})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *apiServer) breakWatches() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.broken)
	a.broken = make(chan struct{})
}

func (a *apiServer) refuseWith(code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = code
}

func (a *apiServer) count(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[what]
}

// ServeHTTP implements http.Handler.
func (a *apiServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	form, watching := q.URL.Query(), q.URL.Query().Get("watch") == "true"
	a.mu.Lock()
	refuse, broken := a.refuse, a.broken
	a.accepted = q.Header.Get("Accept")
	a.asked["all"]++
	a.asked[map[bool]string{true: "watch", false: "list"}[watching]]++
	a.mu.Unlock()
	switch {
	case q.Header.Get("Authorization") != "Bearer "+token, q.URL.Path != "/api/v1/services":
		a.fail(w, q, http.StatusTeapot)
	case refuse != 0:
		a.fail(w, q, refuse)
	case form.Get("sendInitialEvents") == "true" && !a.streamsLists:
		a.fail(w, q, http.StatusUnprocessableEntity)
	case watching:
		a.watch(w, q, broken)
	default:
		items, version := a.snapshot()
		a.send(w, q, http.StatusOK, &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: version}, Items: items})
	}
}

func (a *apiServer) snapshot() (items []corev1.Service, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.services {
		items = append(items, *s)
	}
	return items, strconv.Itoa(len(a.events))
}

func (a *apiServer) fail(w http.ResponseWriter, q *http.Request, code int) {
	reason := map[int]metav1.StatusReason{http.StatusUnauthorized: metav1.StatusReasonUnauthorized, http.StatusUnprocessableEntity: metav1.StatusReasonInvalid}[code]
	a.send(w, q, code, &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: http.StatusText(code)}) //nolint:gosec // Small.
}

// serializerFor returns the one that the client asked for.
func serializerFor(q *http.Request) (runtime.SerializerInfo, runtime.Encoder) {
	codecs, err := newCodecs()
	if err != nil {
		panic(err)
	}
	kind, _, _ := strings.Cut(cmp.Or(q.Header.Get("Accept"), runtime.ContentTypeJSON), ",")
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), kind)
	if !ok {
		panic("no " + kind)
	}
	return info, codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion)
}

func (a *apiServer) send(w http.ResponseWriter, q *http.Request, code int, object runtime.Object) {
	info, encoder := serializerFor(q)
	w.Header().Set("Content-Type", info.MediaType)
	w.WriteHeader(code)
	if err := encoder.Encode(object, w); err != nil {
		a.t.Error(err)
	}
}

// watch sends what there is, if asked to, and every event after that.
func (a *apiServer) watch(w http.ResponseWriter, q *http.Request, broken <-chan struct{}) {
	info, encoder := serializerFor(q)
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	codecs, err := newCodecs()
	if err != nil {
		panic(err)
	}
	events := restwatch.NewEncoder(streaming.NewEncoder(info.StreamSerializer.NewFrameWriter(w),
		codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion)), encoder)
	flush := func() {
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
	next, err := strconv.Atoi(cmp.Or(q.URL.Query().Get("resourceVersion"), "0"))
	if err != nil {
		panic(err)
	}
	if q.URL.Query().Get("sendInitialEvents") == "true" {
		items, version := a.snapshot()
		for i := range items {
			_ = events.Encode(&watch.Event{Type: watch.Added, Object: &items[i]}) //nolint:errcheck // The client has gone.
		}
		end := &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version, Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
		_ = events.Encode(&watch.Event{Type: watch.Bookmark, Object: end}) //nolint:errcheck // The client has gone.
		next, err = strconv.Atoi(version)
		if err != nil {
			panic(err)
		}
	}
	flush()
	for {
		a.mu.Lock()
		due, changed := a.events[next:], a.changed
		a.mu.Unlock()
		for i := range due {
			_ = events.Encode(&due[i]) //nolint:errcheck // The client has gone.
		}
		next += len(due)
		flush()
		select {
		case <-changed:
		case <-broken:
			panic(http.ErrAbortHandler)
		case <-q.Context().Done():
			return
		}
	}
}

// listenAgain gives up the address, so that nobody is there, and returns what
// takes it again.
func (a *apiServer) listenAgain() func() {
	address := a.server.Listener.Addr().String()
	if err := a.server.Listener.Close(); err != nil {
		a.t.Fatal(err)
	}
	return func() {
		listener, err := new(net.ListenConfig).Listen(a.t.Context(), "tcp", address)
		if err != nil {
			a.t.Fatal(err)
		}
		a.server.Listener = listener
		a.start()
	}
}
