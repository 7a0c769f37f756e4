package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Front stands before a registry, remembers what it is asked, and does harm
// where the repository's name begins with a fault:
//
//	status-CODE/…  every request for a manifest is answered with that status
//	hang/…         the layers begin and never go on
//	corrupt/…      the layers are not those that their digests were made of
//	altered/…      the manifest is not the one that its digest was made of
//	slow/…         the layers come with 3 MB a second, at most
//	lasting/…      a manifest takes lastingFor, so that pulls overlap
type Front struct {
	Address string // host:port, plain HTTP

	server *http.Server
	served chan error

	mu       sync.Mutex
	requests []*Request
	held     []*hold
}

const (
	lastingFor = 100 * time.Millisecond
	hangAfter  = 64 << 10 // bytes of what is longer
	slowChunk  = 32 << 10
	slowEvery  = 10 * time.Millisecond
)

// Request is one that came to a front.
type Request struct {
	Repository string
	Kind       string // "manifests" or "blobs"
	Method     string
	User       string // "" without credentials
	Begin      time.Time
	End        time.Time // zero while it is answered
}

// Front starts a front before the rig's open registry.
func (r *Rig) Front(ctx context.Context) (*Front, error) { return r.front(ctx, r.images.registry) }

func (r *Rig) front(ctx context.Context, behind *registry) (*Front, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Front{Address: listener.Addr().String(), served: make(chan error, 1)}
	// It keeps the Host that it was asked for: the registry writes it into its redirects.
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: behind.Address})
			p.Out.Host = p.In.Host
			p.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: damage,
		FlushInterval:  -1, // Some bytes are followed by none.
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f.server = &http.Server{Handler: f.remember(f.fail(proxy)), ReadHeaderTimeout: 10 * time.Second}
	go func() { f.served <- f.server.Serve(listener) }()
	r.mu.Lock()
	r.fronts = append(r.fronts, f)
	r.mu.Unlock()
	return f, nil
}

func (f *Front) close() error {
	err := f.server.Close()
	if served := <-f.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Requests are those for a repository and for those below it, in the order in
// which they came.
func (f *Front) Requests(repository string) []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []Request
	for _, request := range f.requests {
		if within(request.Repository, repository) {
			found = append(found, *request)
		}
	}
	return found
}

func within(repository, folder string) bool {
	return repository == folder || strings.HasPrefix(repository, folder+"/")
}

// hold keeps the requests for a repository and for those below it waiting.
type hold struct {
	repository string
	released   chan struct{}
}

// Hold keeps every request for a repository, and for those below it, waiting
// until it is released.
func (f *Front) Hold(repository string) (release func()) {
	h := &hold{repository, make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, h)
	return sync.OnceFunc(func() { close(h.released) })
}

// wait waits until a request may pass, and reports whether its caller is still
// there.
func (f *Front) wait(r *http.Request, repository string) bool {
	f.mu.Lock()
	held := slices.Clone(f.held)
	f.mu.Unlock()
	for _, h := range held {
		if !within(repository, h.repository) {
			continue
		}
		select {
		case <-h.released:
		case <-r.Context().Done():
			return false
		}
	}
	return true
}

func (f *Front) remember(next http.Handler) http.Handler {
	asked := regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/[^/]+$`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := &Request{Method: r.Method, Begin: time.Now()}
		request.User, _, _ = r.BasicAuth()
		if found := asked.FindStringSubmatch(r.URL.Path); found != nil {
			request.Repository, request.Kind = found[1], found[2]
		}
		f.mu.Lock()
		f.requests = append(f.requests, request)
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			request.End = time.Now()
		}()
		if f.wait(r, request.Repository) {
			next.ServeHTTP(w, r)
		}
	})
}

// fault is the first part of a repository's name.
func fault(r *http.Request) (name string, manifest bool) {
	name, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	return name, strings.Contains(r.URL.Path, "/manifests/")
}

// fail does the harm that comes instead of an answer.
func (*Front) fail(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, manifest := fault(r)
		code, isStatus := strings.CutPrefix(name, "status-")
		switch {
		case manifest && isStatus:
			answer(w, code)
		case manifest && name == "lasting":
			select {
			case <-time.After(lastingFor):
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func answer(w http.ResponseWriter, code string) {
	status, err := strconv.Atoi(code)
	if err != nil {
		status = http.StatusBadRequest
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="front"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":"FRONT","message":"status %d as asked for"}]}`, status)
}

// damage does the harm to the registry's answer.
func damage(response *http.Response) error {
	name, manifest := fault(response.Request)
	if response.StatusCode >= http.StatusMultipleChoices || response.Request.Method != http.MethodGet {
		return nil
	}
	body := response.Body
	switch {
	case name == "altered" && manifest:
		response.Body = lastByte{body}
	case manifest:
	case name == "corrupt":
		response.Body = lastByte{body}
	case name == "hang" && response.ContentLength > hangAfter:
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(body, hangAfter), hanging{response.Request.Context()}), body}
	case name == "slow":
		response.Body = slow{body, response.Request.Context()}
	}
	return nil
}

// lastByte turns the last byte of each piece that it reads into another.
type lastByte struct{ io.ReadCloser }

func (l lastByte) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if n > 0 {
		p[n-1] ^= 1
	}
	return n, err
}

// hanging gives nothing until the reader leaves.
type hanging struct {
	gone context.Context //nolint:containedctx // It is that of the request whose body this is.
}

func (h hanging) Read([]byte) (int, error) {
	<-h.gone.Done()
	return 0, h.gone.Err()
}

// slow gives one piece at a time.
type slow struct {
	io.ReadCloser

	gone context.Context //nolint:containedctx // It is that of the request whose body this is.
}

func (s slow) Read(p []byte) (int, error) {
	select {
	case <-time.After(slowEvery):
	case <-s.gone.Done():
		return 0, s.gone.Err()
	}
	return s.ReadCloser.Read(p[:min(len(p), slowChunk)])
}
