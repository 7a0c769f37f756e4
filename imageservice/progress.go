package imageservice

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"google.golang.org/grpc/status"
)

// progressPeriod is how often it is asked how far a pull is.
const progressPeriod = 250 * time.Millisecond

// Step is one line of the answer to a pull or a copy. One of its fields is set.
// The first line is a Started, unless there is nothing to begin with; then come
// Progress lines, whenever something changed; the last line is a Result or an
// Error, and an answer without one was cut off.
type Step struct {
	Started  *Started  `json:"started,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
	Error    *Failure  `json:"error,omitempty"`
}

// Started says what is done, with the names of the request made complete.
type Started struct {
	Image   string `json:"image"` // Registry and tag added.
	Handler string `json:"handler"`
	Backend string `json:"backend"`        // Whose store it goes to.
	From    string `json:"from,omitempty"` // The handler that a copy comes from.
}

// Progress is how far it is, in bytes. Only a containerd tells.
type Progress struct {
	Done  int64 `json:"done"`  // It never gets less.
	Total int64 `json:"total"` // It grows while the image's parts become known.
}

// Result is what was done, or, of a dry run, what would be.
type Result struct {
	ID      string `json:"id,omitempty"` // The image's id in the store.
	Message string `json:"message"`      // For people.
}

// Failure is why it was not done.
type Failure struct {
	Code    string `json:"code"`    // The name of a gRPC code, such as NotFound.
	Message string `json:"message"` // A runtime's own message as it came.
}

// stepWriter sends the lines of one answer, each at once.
type stepWriter struct {
	encoder *json.Encoder
	flush   func() error
	last    Progress
}

func newStepWriter(w http.ResponseWriter) *stepWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stepWriter{encoder: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
}

// send sends a line. That it could not be sent is no error: the caller is gone,
// and with it its context, which ends the work.
func (w *stepWriter) send(s Step) {
	if err := w.encoder.Encode(s); err == nil {
		_ = w.flush() //nolint:errcheck // See above.
	}
}

// end sends the last line.
func (w *stepWriter) end(result Result, err error) {
	if err != nil {
		s := status.Convert(err)
		w.send(Step{Error: &Failure{Code: s.Code().String(), Message: s.Message()}})
		return
	}
	w.send(Step{Result: &result})
}

// gauge tells how far something is; not ok when it cannot.
type gauge func(context.Context) (p Progress, ok bool)

// run does the work, sends how far it is, and then its outcome. The work has
// ended when it returns.
func (w *stepWriter) run(ctx context.Context, work func(context.Context) (Result, error), far gauge) {
	var result Result
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = work(ctx)
	}()
	w.report(ctx, done, far)
	if err == nil {
		// What containerd need not fetch never counts as done, but now it is there.
		w.advance(Progress{Done: w.last.Total, Total: w.last.Total})
	}
	w.end(result, err)
}

// report sends how far it is until done is closed.
func (w *stepWriter) report(ctx context.Context, done <-chan struct{}, far gauge) {
	ticker := time.NewTicker(progressPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			if p, ok := far(ctx); ok {
				w.advance(p)
			}
		}
	}
}

// advance sends how far it is, if that is news. Between the moment that a part
// is no longer fetched and the one that it is there, containerd has less.
func (w *stepWriter) advance(p Progress) {
	p.Done = max(p.Done, w.last.Done)
	if p != w.last {
		w.last = p
		w.send(Step{Progress: &p})
	}
}
