package fakeruntime

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// lists is a fake with three sandboxes and three containers.
func lists(t *testing.T) (*Runtime, client) {
	t.Helper()
	r, c := start(t, Options{})
	r.AddSandbox(Sandbox{ID: "aa11", Config: podConfig("a")})
	r.AddSandbox(Sandbox{ID: "aa22", Config: podConfig("b"), State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY})
	r.AddSandbox(Sandbox{ID: "bb11", Config: podConfig("c")})
	r.AddContainer(Container{ID: "cc11", SandboxID: "aa11", State: runtimeapi.ContainerState_CONTAINER_RUNNING, Config: containerConfig("x", "busybox")})
	r.AddContainer(Container{ID: "cc22", SandboxID: "aa11", State: runtimeapi.ContainerState_CONTAINER_EXITED, Config: containerConfig("y", "busybox")})
	r.AddContainer(Container{ID: "dd11", SandboxID: "bb11", State: runtimeapi.ContainerState_CONTAINER_RUNNING, Config: containerConfig("x", "busybox")})
	return r, c
}

func TestListPodSandbox(t *testing.T) {
	t.Parallel()
	_, c := lists(t)
	for _, tt := range []struct {
		name   string
		filter *runtimeapi.PodSandboxFilter
		want   []string
	}{
		{"no filter", nil, []string{"aa11", "aa22", "bb11"}},
		{"empty filter", &runtimeapi.PodSandboxFilter{}, []string{"aa11", "aa22", "bb11"}},
		{"id", &runtimeapi.PodSandboxFilter{Id: "aa22"}, []string{"aa22"}},
		{"unique prefix", &runtimeapi.PodSandboxFilter{Id: "b"}, []string{"bb11"}},
		{"ambiguous prefix", &runtimeapi.PodSandboxFilter{Id: "aa"}, nil},
		{"unknown id", &runtimeapi.PodSandboxFilter{Id: "zz"}, nil},
		{"state", &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}}, []string{"aa22"}},
		{"label", &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "c"}}, []string{"bb11"}},
		{"label of another", &runtimeapi.PodSandboxFilter{Id: "bb11", LabelSelector: map[string]string{"app": "a"}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := must[*runtimeapi.ListPodSandboxResponse](t)(c.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: tt.filter}))
			wantIDs(t, resp.GetItems(), (*runtimeapi.PodSandbox).GetId, tt.want)
			sizes, streamed := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxesResponse]](t)(
				c.StreamPodSandboxes(t.Context(), &runtimeapi.StreamPodSandboxesRequest{Filter: tt.filter}),
			), (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes)
			wantIDs(t, streamed, (*runtimeapi.PodSandbox).GetId, tt.want)
			if len(tt.want) == 3 && !slices.Equal(sizes, []int{2, 1}) {
				t.Errorf("the stream came in messages of %v", sizes)
			}
		})
	}
}

func TestListContainers(t *testing.T) {
	t.Parallel()
	_, c := lists(t)
	for _, tt := range []struct {
		name   string
		filter *runtimeapi.ContainerFilter
		want   []string
		stats  []string // of them, the running ones
	}{
		{"no filter", nil, []string{"cc11", "cc22", "dd11"}, []string{"cc11", "dd11"}},
		{"unique prefix", &runtimeapi.ContainerFilter{Id: "dd"}, []string{"dd11"}, []string{"dd11"}},
		{"ambiguous prefix", &runtimeapi.ContainerFilter{Id: "cc"}, nil, nil},
		{"sandbox prefix", &runtimeapi.ContainerFilter{PodSandboxId: "aa1"}, []string{"cc11", "cc22"}, []string{"cc11"}},
		{"unknown sandbox", &runtimeapi.ContainerFilter{PodSandboxId: "zz"}, nil, nil},
		{"label", &runtimeapi.ContainerFilter{LabelSelector: map[string]string{"container": "x"}}, []string{"cc11", "dd11"}, []string{"cc11", "dd11"}},
		{"label and sandbox", &runtimeapi.ContainerFilter{PodSandboxId: "bb11", LabelSelector: map[string]string{"container": "x"}}, []string{"dd11"}, []string{"dd11"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := must[*runtimeapi.ListContainersResponse](t)(c.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: tt.filter}))
			wantIDs(t, resp.GetContainers(), (*runtimeapi.Container).GetId, tt.want)
			_, streamed := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamContainersResponse]](t)(
				c.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{Filter: tt.filter}),
			), (*runtimeapi.StreamContainersResponse).GetContainers)
			wantIDs(t, streamed, (*runtimeapi.Container).GetId, tt.want)
			filter := &runtimeapi.ContainerStatsFilter{Id: tt.filter.GetId(), PodSandboxId: tt.filter.GetPodSandboxId(), LabelSelector: tt.filter.GetLabelSelector()}
			statsID := func(s *runtimeapi.ContainerStats) string { return s.GetAttributes().GetId() }
			stats := must[*runtimeapi.ListContainerStatsResponse](t)(c.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{Filter: filter}))
			wantIDs(t, stats.GetStats(), statsID, tt.stats)
			_, streamedStats := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamContainerStatsResponse]](t)(
				c.StreamContainerStats(t.Context(), &runtimeapi.StreamContainerStatsRequest{Filter: filter}),
			), (*runtimeapi.StreamContainerStatsResponse).GetContainerStats)
			wantIDs(t, streamedStats, statsID, tt.stats)
		})
	}
}

func TestSandboxStatsAndMetrics(t *testing.T) {
	t.Parallel()
	_, c := lists(t)
	ctx := t.Context()
	statsID := func(s *runtimeapi.PodSandboxStats) string { return s.GetAttributes().GetId() }
	stats := must[*runtimeapi.ListPodSandboxStatsResponse](t)(c.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{}))
	wantIDs(t, stats.GetStats(), statsID, []string{"aa11", "bb11"})
	_, streamed := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxStatsResponse]](t)(
		c.StreamPodSandboxStats(ctx, &runtimeapi.StreamPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: "b"}}),
	), (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats)
	wantIDs(t, streamed, statsID, []string{"bb11"})
	one := must[*runtimeapi.PodSandboxStatsResponse](t)(c.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: "aa11"}))
	if got := len(one.GetStats().GetLinux().GetContainers()); got != 1 {
		t.Errorf("stats of %d running containers, want 1", got)
	}
	metrics := must[*runtimeapi.ListPodSandboxMetricsResponse](t)(c.ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{}))
	wantIDs(t, metrics.GetPodMetrics(), (*runtimeapi.PodSandboxMetrics).GetPodSandboxId, []string{"aa11", "aa22", "bb11"})
	_, streamedMetrics := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxMetricsResponse]](t)(
		c.StreamPodSandboxMetrics(ctx, &runtimeapi.StreamPodSandboxMetricsRequest{}),
	), (*runtimeapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics)
	wantIDs(t, streamedMetrics, (*runtimeapi.PodSandboxMetrics).GetPodSandboxId, []string{"aa11", "aa22", "bb11"})
	descriptors := must[*runtimeapi.ListMetricDescriptorsResponse](t)(c.ListMetricDescriptors(ctx, &runtimeapi.ListMetricDescriptorsRequest{}))
	metric, described := metrics.GetPodMetrics()[0].GetMetrics()[0], descriptors.GetDescriptors()[0]
	if metric.GetName() != described.GetName() || len(metric.GetLabelValues()) != len(described.GetLabelKeys()) {
		t.Errorf("metric %v does not fit its descriptor %v", metric, described)
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	r.Fill(20, 5)
	r.Fill(1, 0)
	resp := must[*runtimeapi.ListContainersResponse](t)(c.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{}))
	if got := len(resp.GetContainers()); got != 100 || len(r.Sandboxes()) != 21 {
		t.Fatalf("filled with %d containers and %d sandboxes, want 100 and 21", got, len(r.Sandboxes()))
	}
	if size := proto.Size(resp) / 100; size < 800 || size > 1300 {
		t.Errorf("a container has %d bytes in a list, want about 1,000", size)
	}
	pods := map[string]string{}
	for _, b := range r.Sandboxes() {
		pods[b.GetMetadata().GetUid()] = b.GetId()
	}
	for _, item := range resp.GetContainers() {
		if pods[item.GetLabels()["io.kubernetes.pod.uid"]] != item.GetPodSandboxId() {
			t.Fatalf("the labels of container %v do not name its pod", item)
		}
	}
}

func wantIDs[T any](t *testing.T, items []T, id func(T) string, want []string) {
	t.Helper()
	got := []string{}
	for _, item := range items {
		got = append(got, id(item))
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("ids, -want +got:\n%s", diff)
	}
}

// collect reads a stream to its end: the number of items of each message, and the items.
func collect[M, T any](t *testing.T, stream grpc.ServerStreamingClient[M], items func(*M) []T) ([]int, []T) {
	t.Helper()
	var sizes []int
	var all []T
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return sizes, all
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(items(m)))
		all = append(all, items(m)...)
	}
}
