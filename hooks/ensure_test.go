package hooks

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
)

func TestEnsuredPreStop(t *testing.T) {
	t.Parallel()
	const execHook = `{"exec":{"command":["sleep","1s"]}}`
	seen := func(command []string, seconds int64, result error) func(context.Context, *rig) error {
		return func(ctx context.Context, r *rig) error {
			request := &runtimeapi.ExecSyncRequest{ContainerId: "c", Cmd: command, Timeout: seconds}
			err := r.Exec(ctx, container("c"), request, func(context.Context) error { return result })
			if !errors.Is(err, result) {
				return errors.New("the answer of the exec was lost")
			}
			r.restart() //nolint:contextcheck // What was seen is durable, whoever started the engine.
			return nil
		}
	}
	tests := []struct {
		name   string
		policy string
		hook   string
		grace  time.Duration
		before func(context.Context, *rig) error
		want   []string
	}{
		{"exec that nobody ran", configs.PodPreStopEnsure, execHook, 5 * time.Second, nil, []string{"0s exec sleep 1s", "1s TERM", "1s end"}},
		{"exec in a handler without it", configs.PodPreStopKubelet, execHook, 5 * time.Second, nil, []string{"0s TERM", "0s end"}},
		{"exec with no time", configs.PodPreStopEnsure, execHook, 0, nil, []string{"0s KILL"}},
		{"exec that the kubelet ran", configs.PodPreStopEnsure, execHook, 5 * time.Second, seen([]string{"sleep", "1s"}, 0, nil), []string{"0s TERM", "0s end"}},
		{
			"exec with a time-out, a probe", configs.PodPreStopEnsure, execHook, 5 * time.Second, seen([]string{"sleep", "1s"}, 1, nil),
			[]string{"0s exec sleep 1s", "1s TERM", "1s end"},
		},
		{
			"another exec", configs.PodPreStopEnsure, execHook, 5 * time.Second, seen([]string{"sleep", "2s"}, 0, nil),
			[]string{"0s exec sleep 1s", "1s TERM", "1s end"},
		},
		{
			"exec that was cut off", configs.PodPreStopEnsure, execHook, 5 * time.Second, seen([]string{"sleep", "1s"}, 0, status.Error(codes.Unavailable, "gone")),
			[]string{"0s exec sleep 1s", "1s TERM", "1s end"},
		},
		{"sleep", configs.PodPreStopEnsure, `{"sleep":{"seconds":3}}`, 5 * time.Second, nil, []string{"0s TERM", "0s end"}},
		{"HTTP and time for the kubelet", configs.PodPreStopEnsure, `{"httpGet":{"port":1}}`, 5 * time.Second, nil, []string{"0s TERM", "0s end"}},
		{"no JSON", configs.PodPreStopEnsure, `{`, 5 * time.Second, nil, []string{"0s TERM", "0s end"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, configs.Hooks{PodPreStop: tt.policy}, func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", running, map[string]string{preStopAnnotation: tt.hook})
				if tt.before != nil {
					if err := tt.before(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if err := r.Stop(t.Context(), container("c"), tt.grace); err != nil {
					t.Error(err)
				}
				wantNotes(t, d, tt.want...)
				r.clean()
			})
		})
	}
}

// The kubelet has given up on its PreStop, which still runs, and stops.
func TestEnsuredPreStopThatStillRuns(t *testing.T) {
	t.Parallel()
	timed(t, configs.Hooks{PodPreStop: configs.PodPreStopEnsure}, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, map[string]string{preStopAnnotation: `{"exec":{"command":["sleep","1h"]}}`})
		request := &runtimeapi.ExecSyncRequest{ContainerId: "c", Cmd: []string{"sleep", "1h"}}
		hook := begin(func() error {
			return r.Exec(t.Context(), container("c"), request, func(ctx context.Context) error {
				_, err := d.ExecSync(ctx, request)
				return err
			})
		})
		after(t, time.Second)
		if err := errors.Join(r.Stop(t.Context(), container("c"), 2*time.Second), hook()); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s exec sleep 1h", "1s TERM", "1s end")
	})
}
