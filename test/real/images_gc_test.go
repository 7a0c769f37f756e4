package real_test

import (
	"context"
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testCollection: the kubelet's image garbage collection over two stores removes
// what nobody uses from both, and nothing else.
func testCollection(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	k := kubelet(t, s.node, s.proxy(ctx, t, "collect", nil).Endpoint())
	here, there := sandbox(ctx, t, k, "runc"), sandbox(ctx, t, k, second)
	names := []string{"alpha", "beta", "both", "nobody"}
	images := map[string]image{}
	for _, name := range names {
		images[name] = push(ctx, t, s, "example.test/collection-"+name+":v1", rig.Image{})
		for _, pod := range []*rig.KubeletPod{here, there} {
			if _, err := k.Pull(ctx, pod, images[name].name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, pods := range map[string][]*rig.KubeletPod{"alpha": {here}, "beta": {there}, "both": {here, there}} {
		for _, pod := range pods {
			start(ctx, t, k, pod, rig.KubeletContainer{Image: images[name].name}, false)
		}
	}
	collect := func(wanted ...string) {
		t.Helper()
		removed, err := k.CollectImages(ctx, func(i *runtimeapi.Image) bool {
			return slices.ContainsFunc(names, func(name string) bool { return images[name].ID == i.GetId() })
		})
		if err != nil {
			t.Error(err)
		}
		var want []string
		for _, name := range wanted {
			want = append(want, images[name].ID)
		}
		slices.Sort(removed)
		slices.Sort(want)
		if !slices.Equal(removed, want) {
			t.Errorf("removed are %q, want %q", removed, want)
		}
		for _, store := range []*rig.Containerd{s.alpha, s.beta} {
			for _, name := range wanted {
				wantImage(ctx, t, crictl(t, s.node, store.Endpoint()), images[name], false)
			}
		}
	}
	collect("nobody")
	for _, store := range []*rig.Containerd{s.alpha, s.beta} {
		for _, name := range []string{"alpha", "beta", "both"} {
			wantImage(ctx, t, crictl(t, s.node, store.Endpoint()), images[name], true)
		}
	}
	start(ctx, t, k, there, rig.KubeletContainer{Image: images["both"].name, Policy: rig.Never}, false)
	if err := k.Remove(ctx, here); err != nil {
		t.Fatal(err)
	}
	collect("alpha")
	start(ctx, t, k, there, rig.KubeletContainer{Image: images["both"].name, Policy: rig.Never}, false)
	if err := k.Remove(ctx, there); err != nil {
		t.Fatal(err)
	}
	collect("beta", "both")
}
