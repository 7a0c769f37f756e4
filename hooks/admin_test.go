package hooks

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// ask calls the handler and returns the status and the body.
func (r *rig) ask(method, path string) (int, string) {
	recorder := httptest.NewRecorder()
	r.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(r.t.Context(), method, path, http.NoBody))
	return recorder.Code, recorder.Body.String()
}

func (r *rig) entries() []Entry {
	r.t.Helper()
	code, body := r.ask(http.MethodGet, "/v1/hooks")
	var report Report
	if err := json.Unmarshal([]byte(body), &report); err != nil || code != http.StatusOK {
		r.t.Fatalf("%d %s (%v)", code, body, err)
	}
	return report.Hooks
}

func TestOperations(t *testing.T) {
	t.Parallel()
	secret := configs.Hook{
		Name: "secret", HTTPGet: &configs.HTTPGetHook{Scheme: "http", Port: 1, Path: "/?token=hush", Headers: []configs.Header{{Name: "A", Value: "hush"}}},
		Timeout: configs.Duration{Duration: time.Hour}, Attempts: 1,
	}
	hooks := postStarts(postStart(exec("register", "flaky"), true, configs.OnFailureIgnore))
	hooks.PreStop = []configs.Hook{exec("drain", "sleep 20s"), exec("next", "true"), secret}
	timed(t, hooks, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		fails := true
		d.exec = func(ctx context.Context, command []string) (int32, error) {
			if command[0] == "flaky" && fails {
				return 3, nil
			}
			return d.containers["c"].run(ctx, command)
		}
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Fatal(err)
		}
		all := r.entries()
		if len(all) != 1 || all[0].State != journal.Failed || all[0].Error != "exit code 3" || all[0].Kind != "exec" || all[0].Pod != "pod" {
			t.Fatalf("the list is %+v", all)
		}
		id := all[0].ID
		fails = false
		if code, body := r.ask(http.MethodPost, "/v1/hooks/"+id+"/retry"); code != http.StatusNoContent {
			t.Errorf("retry: %d %s", code, body)
		}
		after(t, time.Second)
		r.wantStates(map[string]journal.State{"register": journal.Delivered})
		if d.ran("flaky") != 2 {
			t.Errorf("it ran %d times", d.ran("flaky"))
		}
		if code, _ := r.ask(http.MethodPost, "/v1/hooks/"+id+"/retry"); code != http.StatusConflict {
			t.Errorf("retry of what is delivered: %d, want %d", code, http.StatusConflict)
		}

		stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
		after(t, 3*time.Second)
		for _, e := range slices.Backward(r.entries()) { // The next one begins when one is dropped.
			code, body := r.ask(http.MethodGet, "/v1/hooks/"+e.ID)
			if code != http.StatusOK || strings.Contains(body, "hush") {
				t.Errorf("%d %s", code, body)
			}
			if e.Event == journal.PreStop {
				if code, body := r.ask(http.MethodDelete, "/v1/hooks/"+e.ID); code != http.StatusNoContent {
					t.Errorf("drop: %d %s", code, body)
				}
			}
		}
		if err := stopped(); err != nil {
			t.Error(err)
		}
		if notes := d.all(); notes[len(notes)-1] != "4s end" {
			t.Errorf("the container did not end when its hooks were dropped: %q", notes)
		}
		moot := journal.Moot
		r.wantStates(map[string]journal.State{"register": journal.Delivered, "drain": moot, "next": moot, "secret": moot})
		if code, _ := r.ask(http.MethodDelete, "/v1/hooks/"+id); code != http.StatusNoContent || len(r.entries()) != 3 {
			t.Errorf("drop of what is delivered: %d, %d are left", code, len(r.entries()))
		}
		for _, path := range []string{http.MethodGet + " /v1/hooks/x", http.MethodDelete + " /v1/hooks/x", http.MethodPost + " /v1/hooks/x/retry"} {
			method, path, _ := strings.Cut(path, " ")
			if code, _ := r.ask(method, path); code != http.StatusNotFound {
				t.Errorf("%s %s: %d, want 404", method, path, code)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 2s"), exec("broken", "exit 3"), exec("late", "sleep 1h"), exec("never", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
		after(t, time.Second)
		want := `
# HELP cri_proxy_journal_oldest_seconds Age of the oldest hook that is not finished; 0 without one.
# TYPE cri_proxy_journal_oldest_seconds gauge
cri_proxy_journal_oldest_seconds 1
`
		if err := testutil.GatherAndCompare(r.metrics, strings.NewReader(want), "cri_proxy_journal_oldest_seconds"); err != nil {
			t.Error(err)
		}
		if err := stopped(); err != nil {
			t.Error(err)
		}
		want = `
# HELP cri_proxy_hook_deliveries_total Hooks that were finished, by their result: delivered, failed, skipped or moot.
# TYPE cri_proxy_hook_deliveries_total counter
cri_proxy_hook_deliveries_total{event="PostStart",handler="gvisor",result="delivered"} 0
cri_proxy_hook_deliveries_total{event="PostStart",handler="gvisor",result="failed"} 0
cri_proxy_hook_deliveries_total{event="PostStart",handler="gvisor",result="moot"} 0
cri_proxy_hook_deliveries_total{event="PostStart",handler="gvisor",result="skipped"} 0
cri_proxy_hook_deliveries_total{event="PreStop",handler="gvisor",result="delivered"} 1
cri_proxy_hook_deliveries_total{event="PreStop",handler="gvisor",result="failed"} 2
cri_proxy_hook_deliveries_total{event="PreStop",handler="gvisor",result="moot"} 0
cri_proxy_hook_deliveries_total{event="PreStop",handler="gvisor",result="skipped"} 1
# HELP cri_proxy_journal_records Hooks in the journal, finished ones of the last day included.
# TYPE cri_proxy_journal_records gauge
cri_proxy_journal_records{state="delivered"} 1
cri_proxy_journal_records{state="failed"} 2
cri_proxy_journal_records{state="moot"} 0
cri_proxy_journal_records{state="pending"} 0
cri_proxy_journal_records{state="running"} 0
cri_proxy_journal_records{state="skipped"} 1
`
		if err := testutil.GatherAndCompare(r.metrics, strings.NewReader(want), "cri_proxy_hook_deliveries_total", "cri_proxy_journal_records"); err != nil {
			t.Error(err)
		}
	})
}
