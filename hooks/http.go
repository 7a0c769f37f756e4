package hooks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// The headers of every request. They replace what a definition says.
const (
	headerPrefix      = "X-Cri-Proxy-"
	headerDeliveryID  = headerPrefix + "Delivery-Id"
	headerAttempt     = headerPrefix + "Attempt"
	headerEvent       = headerPrefix + "Event"
	headerContainerID = headerPrefix + "Container-Id"
)

const (
	maxBody      = 10 << 10
	maxHeader    = 64 << 10
	maxRedirects = 10
	userAgent    = "cri-proxy-hooks"
)

// newHTTPClient is as the kubelet's for its hooks: no proxy, certificates not
// verified (a pod's address is in none). Each request has a connection of its
// own, since the next one may be to another server at the same address.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
			TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // As the kubelet does.
		},
		CheckRedirect: sameHost,
	}
}

// sameHost follows redirects within one host. One that leads elsewhere is the answer itself.
func sameHost(request *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errRedirects
	}
	if request.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	return nil
}

var errRedirects = fmt.Errorf("it redirects more than %d times", maxRedirects)

func (e *Engine) httpGet(ctx context.Context, client runtimeapi.RuntimeServiceClient, r journal.Record) error {
	host := r.Hook.HTTPGet.Host
	if host == "" {
		var err error
		if host, err = e.address(ctx, client, r.Sandbox); err != nil {
			return err
		}
	}
	var progress exchange
	request, err := newRequest(progress.trace(ctx), host, r)
	if err != nil {
		return err
	}
	// net/http goes on with the dialling, a TLS greeting above all, of a request
	// that has ended, in the hope of another one that could use the connection.
	defer e.http.CloseIdleConnections()
	answer, err := e.http.Do(request)
	if err != nil {
		return progress.failure(err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, maxBody))
	if err = errors.Join(err, answer.Body.Close()); err != nil && ctx.Err() == nil {
		e.Log.WithError(err).WithField("delivery", r.ID).Debug("the answer to a hook broke off after its status")
	}
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("it answered %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	return nil
}

func newRequest(ctx context.Context, host string, r journal.Record) (*http.Request, error) {
	g := r.Hook.HTTPGet
	target, err := url.Parse("/" + strings.TrimPrefix(g.Path, "/"))
	if err != nil {
		target = &url.URL{Path: g.Path} // As the kubelet does.
	}
	target.Scheme, target.Host, target.User = g.Scheme, net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(g.Port)), nil
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("its URL cannot be used; look at its host and path")
	}
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "*/*")
	fresh := map[string]bool{}
	for _, h := range g.Headers {
		name := http.CanonicalHeaderKey(h.Name)
		if name == "Host" {
			request.Host = h.Value
			continue
		}
		if !fresh[name] { // The first one replaces the default, further ones are added.
			request.Header.Del(name)
			fresh[name] = true
		}
		request.Header.Add(name, h.Value)
	}
	request.Header.Set(headerDeliveryID, r.ID)
	request.Header.Set(headerAttempt, strconv.Itoa(r.Attempts))
	request.Header.Set(headerEvent, string(r.Event))
	request.Header.Set(headerContainerID, r.Container)
	return request, nil
}

// address is where a pod's servers listen.
func (e *Engine) address(ctx context.Context, client runtimeapi.RuntimeServiceClient, sandbox string) (string, error) {
	answer, err := client.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
	if err != nil {
		return "", fmt.Errorf("find the pod's address: %w", err)
	}
	if ip := answer.GetStatus().GetNetwork().GetIp(); ip != "" {
		return ip, nil
	}
	if answer.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		return "", errors.New("the pod has no address: its network may be gone")
	}
	if ip := e.NodeIP(); ip != "" {
		return ip, nil
	}
	return "", errors.New("the pod uses the node's network, and the node's address is not known; name a host in the hook")
}

// isTransient reports whether an error says that nobody was there to answer.
func isTransient(err error) bool {
	_, isUnanswered := errors.AsType[noAnswerError](err)
	return isUnanswered || err != nil && status.Code(err) == codes.Unavailable
}
