package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kubernetesService is an API server with one Service, and nothing to watch.
func kubernetesService(t *testing.T) *httptest.Server {
	t.Helper()
	return httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if agent := q.UserAgent(); q.Header.Get("Authorization") != "Bearer "+apiToken || !strings.HasPrefix(agent, "cri-proxy/") {
			t.Errorf("%s came with %q", agent, q.Header.Get("Authorization"))
		}
		if path := strings.TrimPrefix(q.URL.Path, "/clusters/c-1"); path != "/api/v1/services" {
			t.Errorf("a request for %s", q.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		switch {
		case q.FormValue("sendInitialEvents") == "true":
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer(t, w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case q.FormValue("watch") == "true":
			w.WriteHeader(http.StatusOK)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			<-q.Context().Done()
		default:
			answer(t, w, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[
				{"metadata":{"name":"kubernetes","namespace":"default"},"spec":{"clusterIP":"10.0.0.1","ports":[{"name":"https","port":443,"protocol":"TCP"}]}}]}`)
		}
	}))
}

func answer(t *testing.T, w http.ResponseWriter, body string) {
	t.Helper()
	if _, err := w.Write([]byte(body)); err != nil {
		t.Error(err)
	}
}

// TestKubeconfigLater: the proxy serves before its node has joined a cluster, and
// knows the Services when the kubeconfig has come.
func TestKubeconfigLater(t *testing.T) {
	t.Parallel()
	server := kubernetesService(t)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubelet.conf")
	p, alpha := withServices(t, fmt.Sprintf("kubernetes.kubeconfig = %q", file))
	t.Cleanup(p.stop) // Before the server, which waits for its callers.
	request := p.asked("runc", nil)
	if _, err := added(t, p, alpha, request); status.Code(err) != codes.Unavailable || !strings.Contains(messageOf(err), file+" is not there yet") {
		t.Errorf("before it is there: %v", err)
	}
	if err := os.Rename(kubeconfigFor(t, server.URL+"/clusters/c-1"), file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Services are known", func() bool { return p.serviceCache().Synced })
	if got, err := added(t, p, alpha, request); err != nil || len(got) != 8 || got[0] != "KUBERNETES_SERVICE_HOST=10.0.0.1" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestServiceEnvOfCluster: the proxy starts without the API server, and knows its
// Services as soon as it is there.
func TestServiceEnvOfCluster(t *testing.T) {
	t.Parallel()
	server := kubernetesService(t)
	address := server.Listener.Addr().String()
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	p, alpha := withServices(t, "kubernetes.kubeconfig = \""+kubeconfigFor(t, "https://"+address)+"\"")
	request := p.asked("runc", nil)
	if _, err := added(t, p, alpha, request); status.Code(err) != codes.Unavailable || strings.Contains(messageOf(err), apiToken) {
		t.Errorf("without the API server: %v", err)
	}
	if s := p.serviceCache(); s == nil || s.Synced || s.Source != "kubernetes" {
		t.Errorf("without the API server the status says %+v", s)
	}
	var err error
	if server.Listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address); err != nil {
		t.Fatal(err)
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	t.Cleanup(p.stop) // Before the server, which waits for its callers.
	eventually(t, "the Services are known", func() bool { return p.serviceCache().Synced })
	got, err := added(t, p, alpha, request)
	if err != nil || len(got) != 8 || got[0] != "KUBERNETES_SERVICE_HOST=10.0.0.1" || got[2] != "KUBERNETES_SERVICE_PORT_HTTPS=443" {
		t.Errorf("got %v, %v", got, err)
	}
	if s := p.serviceCache(); s.Services != 1 || s.Error != "" || p.scrape().of("cri_proxy_service_cache_synced").sum() != 1 {
		t.Errorf("the status says %+v", s)
	}
}
