package hooks

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// Report is the body of GET /v1/hooks.
type Report struct {
	Hooks []Entry `json:"hooks"` // The oldest first.
	// Unreadable counts records of another version of this program.
	Unreadable int `json:"unreadable"`
}

// Counts are how many hooks there are.
type Counts struct {
	Pending int `json:"pending"` // Not finished.
	Failed  int `json:"failed"`  // In the last day.
}

// Counts returns how many hooks there are.
func (e *Engine) Counts() (Counts, error) {
	stats, err := e.Journal.Stats()
	return Counts{Pending: stats.ByState[journal.Pending] + stats.ByState[journal.Running], Failed: stats.ByState[journal.Failed]}, err
}

// Entry is the body of GET /v1/hooks/{id}. It leaves out the values of headers
// and the query of a path, which may be secrets.
type Entry struct {
	ID            string         `json:"id"`
	State         journal.State  `json:"state"`
	Event         journal.Event  `json:"event"`
	Hook          string         `json:"hook"`
	Source        journal.Source `json:"source"`
	Kind          string         `json:"kind"` // exec, httpGet or sleep.
	Handler       string         `json:"handler"`
	Namespace     string         `json:"namespace"`
	Pod           string         `json:"pod"`
	PodUID        string         `json:"podUid"`
	ContainerName string         `json:"containerName"`
	Container     string         `json:"container"`
	Sandbox       string         `json:"sandbox"`
	Attempts      int            `json:"attempts"`
	MaxAttempts   int            `json:"maxAttempts"`
	Timeout       string         `json:"timeout,omitempty"`
	Accepted      time.Time      `json:"accepted"`
	Deadline      time.Time      `json:"deadline,omitzero"`
	Finished      time.Time      `json:"finished,omitzero"`
	Error         string         `json:"error,omitempty"`
}

func entryOf(r journal.Record) Entry {
	entry := Entry{
		ID: r.ID, State: r.State, Event: r.Event, Hook: r.Hook.Name, Source: r.Hook.Source, Kind: r.Hook.Kind(),
		Handler: r.Handler, Namespace: r.Pod.Namespace, Pod: r.Pod.Name, PodUID: r.Pod.UID, ContainerName: r.ContainerName,
		Container: r.Container, Sandbox: r.Sandbox, Attempts: r.Attempts, MaxAttempts: r.Hook.Attempts,
		Accepted: r.Accepted, Finished: r.Finished, Error: r.Error,
	}
	if r.Hook.Timeout > 0 {
		entry.Timeout = r.Hook.Timeout.String()
	}
	if r.Deadline != nil {
		entry.Deadline = r.Deadline.Wall
	}
	return entry
}

// Handler serves /v1/hooks and what is below it.
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/hooks", func(w http.ResponseWriter, _ *http.Request) {
		report, err := e.list()
		e.answer(w, report, err)
	})
	mux.HandleFunc("GET /v1/hooks/{id}", func(w http.ResponseWriter, r *http.Request) {
		record, err := e.record(r.PathValue("id"))
		e.answer(w, entryOf(record), err)
	})
	mux.HandleFunc("POST /v1/hooks/{id}/retry", func(w http.ResponseWriter, r *http.Request) {
		e.answer(w, nil, e.Retry(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("DELETE /v1/hooks/{id}", func(w http.ResponseWriter, r *http.Request) {
		e.answer(w, nil, e.Drop(r.PathValue("id")))
	})
	return mux
}

func (e *Engine) list() (Report, error) {
	records, unreadable, err := e.Journal.Records()
	report := Report{Hooks: make([]Entry, 0, len(records)), Unreadable: unreadable}
	for _, r := range records {
		report.Hooks = append(report.Hooks, entryOf(r))
	}
	return report, err
}

// answer writes a body, nothing for nil, or an error as text.
func (e *Engine) answer(w http.ResponseWriter, body any, err error) {
	switch {
	case errors.Is(err, journal.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case status.Code(err) == codes.FailedPrecondition:
		http.Error(w, status.Convert(err).Message(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(body); err != nil {
			e.Log.WithError(err).Debug("the answer about hooks did not reach its reader")
		}
	}
}
