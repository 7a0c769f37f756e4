package imageservice

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stepsCase is a work and the lines that are sent of it.
type stepsCase struct {
	name string
	far  []Progress // What the gauge says at each period; the last one from then on.
	err  error
	want string
}

func (c stepsCase) test(t *testing.T) {
	t.Helper()
	asked := 0
	far := func(context.Context) (Progress, bool) {
		asked++
		if len(c.far) == 0 {
			return Progress{}, false
		}
		return c.far[min(asked, len(c.far))-1], true
	}
	answer := httptest.NewRecorder()
	newStepWriter(answer).run(t.Context(), func(context.Context) (Result, error) {
		<-time.After(time.Duration(len(c.far)+2)*progressPeriod + time.Millisecond)
		return Result{ID: "sha256:1", Message: "pulled"}, c.err
	}, far)
	if diff := cmp.Diff(c.want, answer.Body.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if asked != len(c.far)+2 || !answer.Flushed {
		t.Errorf("asked %d times, want once in a period; flushed: %t", asked, answer.Flushed)
	}
}

// TestStepsOfWork: what is sent while something goes on, and how it ends.
func TestStepsOfWork(t *testing.T) {
	t.Parallel()
	failed := status.Error(codes.ResourceExhausted, "no space left on device")
	for _, c := range []stepsCase{
		{"without a gauge", nil, nil, `{"result":{"id":"sha256:1","message":"pulled"}}` + "\n"},
		{
			"news only, and never less",
			[]Progress{{0, 5}, {0, 5}, {4, 5}, {3, 5}, {4, 9}, {9, 9}},
			nil,
			`{"progress":{"done":0,"total":5}}
{"progress":{"done":4,"total":5}}
{"progress":{"done":4,"total":9}}
{"progress":{"done":9,"total":9}}
{"result":{"id":"sha256:1","message":"pulled"}}
`,
		},
		{
			"parts that need not be fetched, and never count as done",
			[]Progress{{3, 5}},
			nil,
			`{"progress":{"done":3,"total":5}}
{"progress":{"done":5,"total":5}}
{"result":{"id":"sha256:1","message":"pulled"}}
`,
		},
		{
			"a failure",
			[]Progress{{1, 5}},
			failed,
			`{"progress":{"done":1,"total":5}}
{"error":{"code":"ResourceExhausted","message":"no space left on device"}}
`,
		},
		{"a failure that is not gRPC's", nil, errors.New("odd"), `{"error":{"code":"Unknown","message":"odd"}}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, c.test)
		})
	}
}
