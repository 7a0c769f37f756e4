package imageservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// maxRequest is the size of the largest request that is read.
const maxRequest = 64 << 10

// PullRequest is the body of POST /v1/images/pull.
type PullRequest struct {
	Handler string `json:"handler,omitempty"` // "" is the default one.
	Image   string `json:"image"`
	DryRun  bool   `json:"dryRun,omitempty"` // Only say what would be done.
}

// CopyRequest is the body of POST /v1/images/copy.
type CopyRequest struct {
	From   string `json:"from"` // The handler whose store has the image.
	To     string `json:"to"`   // The handler whose pods are to have it.
	Image  string `json:"image"`
	DryRun bool   `json:"dryRun,omitempty"` // Only say what would be done.
}

// Admin returns the handler of the admin API's subtree /v1/images:
//
//   - GET /v1/images[?handler=H]: a [Listing], of all stores or of one
//     handler's images.
//   - POST /v1/images/pull with a [PullRequest]: pulls with the handler's
//     credentials and in turn with its other pulls, see [Service.Pull].
//   - POST /v1/images/copy with a [CopyRequest]: brings an image of one handler
//     to another one without a registry: between the stores of two containerds,
//     or, in one store, from one snapshotter to another.
//
// In both, the handler's allow and require_digest count, and its pull_policy does
// not: that is about what kubelets ask for.
//
// The two POSTs answer with lines of JSON, each a [Step]; what goes wrong once
// the work has begun is in the last one. When the caller goes away the work ends,
// unless a kubelet waits for the same pull.
//
// A request that cannot be understood is answered with text: 400 for a body that
// is not the JSON of the request and nothing else, or lacks the image or a
// handler; 404 for a handler that is not configured; 405 for another method; 413
// for a body of more than 64 KiB.
func (s *Service) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/images", s.serveList)
	mux.HandleFunc("POST /v1/images/pull", s.servePull)
	mux.HandleFunc("POST /v1/images/copy", s.serveCopy)
	return mux
}

func (s *Service) serveList(w http.ResponseWriter, q *http.Request) {
	handler := q.URL.Query().Get("handler")
	if handler != "" {
		if _, err := s.Table.Resolve(handler); err != nil {
			refuse(w, err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s.list(q.Context(), handler)); err != nil {
		s.Log.WithError(err).Debug("the list of images was not sent")
	}
}

func (s *Service) servePull(w http.ResponseWriter, q *http.Request) {
	var request PullRequest
	if err := readRequest(w, q, &request); err != nil {
		refuse(w, err)
		return
	}
	h, err := s.Table.Resolve(request.Handler)
	if err == nil {
		err = needed("image", request.Image)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.adminPull(q.Context(), newStepWriter(w), h, request)
}

func (s *Service) serveCopy(w http.ResponseWriter, q *http.Request) {
	var request CopyRequest
	if err := readRequest(w, q, &request); err != nil {
		refuse(w, err)
		return
	}
	if err := errors.Join(needed("from", request.From), needed("to", request.To), needed("image", request.Image)); err != nil {
		refuse(w, err)
		return
	}
	from, err := s.Table.Resolve(request.From)
	if err != nil {
		refuse(w, err)
		return
	}
	to, err := s.Table.Resolve(request.To)
	if err != nil {
		refuse(w, err)
		return
	}
	s.adminCopy(q.Context(), newStepWriter(w), from, to, request)
}

func needed(field, value string) error {
	if value == "" {
		return fmt.Errorf("the request has no %q", field)
	}
	return nil
}

// readRequest reads a body of JSON to its end, so that the server notices when
// the caller goes away.
func readRequest(w http.ResponseWriter, q *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxRequest))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("the request is not the JSON that it should be: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the request has something after its JSON")
	}
	return nil
}

// refuse answers a request that cannot be done as it is.
func refuse(w http.ResponseWriter, err error) {
	code := http.StatusBadRequest
	if _, ok := errors.AsType[*routing.UnknownHandlerError](err); ok {
		code = http.StatusNotFound
	} else if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		code = http.StatusRequestEntityTooLarge
	}
	http.Error(w, err.Error(), code)
}
