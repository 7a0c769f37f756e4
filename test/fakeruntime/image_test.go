package fakeruntime

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestParseReference(t *testing.T) {
	t.Parallel()
	digest := digestOf("x")
	for in, want := range map[string]string{
		"busybox":                           "docker.io/library/busybox:latest",
		"busybox:1":                         "docker.io/library/busybox:1",
		"user/app":                          "docker.io/user/app:latest",
		"docker.io/busybox":                 "docker.io/library/busybox:latest",
		"index.docker.io/library/busybox":   "docker.io/library/busybox:latest",
		"quay.io/a/b:v1":                    "quay.io/a/b:v1",
		"localhost/a":                       "localhost/a:latest",
		"reg:5000/a":                        "reg:5000/a:latest",
		"reg:5000/a:v1":                     "reg:5000/a:v1",
		"busybox@" + digest:                 "docker.io/library/busybox@" + digest,
		"quay.io/a/b:v1@" + digest:          "quay.io/a/b@" + digest,
		"registry.example.com:443/a/b/c:v1": "registry.example.com:443/a/b/c:v1",
	} {
		if got := parseReference(in).String(); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func imageStatus(t *testing.T, c client, name string) *runtimeapi.Image {
	t.Helper()
	resp := must[*runtimeapi.ImageStatusResponse](t)(c.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}}))
	return resp.GetImage()
}

func pull(t *testing.T, c client, name string) string {
	t.Helper()
	resp := must[*runtimeapi.PullImageResponse](t)(c.PullImage(t.Context(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: name, RuntimeHandler: "anything"},
	}))
	return resp.GetImageRef()
}

func TestImages(t *testing.T) {
	t.Parallel()
	_, c := start(t, Options{})
	if got := imageStatus(t, c, "busybox"); got != nil {
		t.Errorf("an image that was never pulled is %v", got)
	}
	id := pull(t, c, "busybox")
	image := imageStatus(t, c, "docker.io/library/busybox:latest")
	if id != digestOf("docker.io/library/busybox:latest") || image.GetId() != id || image.GetSize() == 0 || image.GetSpec() != nil {
		t.Errorf("the pulled image is %v", image)
	}
	short := strings.TrimPrefix(id, "sha256:")[:12]
	for _, name := range []string{"busybox", "busybox:latest", id, short, "sha256:" + short, image.GetRepoDigests()[0]} {
		if got := imageStatus(t, c, name); got.GetId() != id {
			t.Errorf("image %q is %v", name, got)
		}
	}
	list := must[*runtimeapi.ListImagesResponse](t)(c.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}))
	_, streamed := collect(t, must[grpc.ServerStreamingClient[runtimeapi.StreamImagesResponse]](t)(
		c.StreamImages(t.Context(), &runtimeapi.StreamImagesRequest{}),
	), (*runtimeapi.StreamImagesResponse).GetImages)
	wantIDs(t, list.GetImages(), (*runtimeapi.Image).GetId, []string{id})
	wantIDs(t, streamed, (*runtimeapi.Image).GetId, []string{id})
	must[*runtimeapi.RemoveImageResponse](t)(c.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}}))
	if got := imageStatus(t, c, "busybox"); got != nil {
		t.Errorf("the removed image is still %v", got)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{})
	id := digestOf("one")
	r.Publish("app:v1", &runtimeapi.Image{Id: id, Uid: &runtimeapi.Int64Value{Value: 1000}, Pinned: true})
	r.Publish("app:v2", &runtimeapi.Image{Id: id})
	if pull(t, c, "app:v1") != id || pull(t, c, "app:v2") != id {
		t.Error("the published id is not what a pull gives")
	}
	if got := imageStatus(t, c, id).GetRepoTags(); len(got) != 2 {
		t.Errorf("the tags of one id are %v", got)
	}
	r.Publish("app:v1", &runtimeapi.Image{Id: digestOf("two")})
	pull(t, c, "app:v1")
	if got := imageStatus(t, c, id).GetRepoTags(); len(got) != 1 || got[0] != "docker.io/library/app:v2" {
		t.Errorf("a moved tag leaves %v", got)
	}
	uid := int64(7)
	r.SetUser("app:v2", &uid, "")
	if got := imageStatus(t, c, "app:v2"); got.GetUid().GetValue() != 7 {
		t.Errorf("the user is %v", got)
	}
	r.SetUser("app:v2", nil, "nobody")
	if got := imageStatus(t, c, "app:v2"); got.GetUid() != nil || got.GetUsername() != "nobody" {
		t.Errorf("the user is %v", got)
	}
	if got := r.AddImage("local:1", &runtimeapi.Image{Size: 9}); len(r.Images()) != 3 || imageStatus(t, c, got).GetSize() != 9 {
		t.Errorf("the images are %v", r.Images())
	}
}

func TestPullIsAsked(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{Pull: func(_ context.Context, req *runtimeapi.PullImageRequest) error {
		if req.GetAuth().GetPassword() != "secret" {
			return status.Error(codes.PermissionDenied, "denied")
		}
		return nil
	}})
	spec := &runtimeapi.ImageSpec{Image: "private"}
	_, err := c.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec})
	wantError(t, err, "PermissionDenied: denied")
	must[*runtimeapi.PullImageResponse](t)(c.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec, Auth: &runtimeapi.AuthConfig{Password: "secret"}}))
	if len(r.Images()) != 1 {
		t.Errorf("the images are %v", r.Images())
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{
		Runtimes: []string{"runsc", "kata"}, CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS, ImageMountpoint: "/images",
		Features:     map[string]*runtimeapi.RuntimeHandlerFeatures{"": {UserNamespaces: true}},
		NodeFeatures: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	})
	resp := must[*runtimeapi.StatusResponse](t)(c.Status(t.Context(), &runtimeapi.StatusRequest{}))
	wantIDs(t, resp.GetRuntimeHandlers(), (*runtimeapi.RuntimeHandler).GetName, []string{"", "kata", "runsc"})
	wantIDs(t, resp.GetStatus().GetConditions(), (*runtimeapi.RuntimeCondition).GetType, []string{"RuntimeReady", "NetworkReady"})
	if !resp.GetRuntimeHandlers()[0].GetFeatures().GetUserNamespaces() || !resp.GetFeatures().GetSupplementalGroupsPolicy() || resp.GetInfo() != nil {
		t.Errorf("status is %v", resp)
	}
	r.Configure(func(o *Options) { o.OldStatus = true })
	resp = must[*runtimeapi.StatusResponse](t)(c.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true}))
	if resp.GetRuntimeHandlers() != nil || resp.GetFeatures() != nil || len(resp.GetInfo()) == 0 {
		t.Errorf("an old verbose status is %v", resp)
	}
	config := must[*runtimeapi.RuntimeConfigResponse](t)(c.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{}))
	info := must[*runtimeapi.ImageFsInfoResponse](t)(c.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{}))
	if config.GetLinux().GetCgroupDriver() != runtimeapi.CgroupDriver_CGROUPFS || info.GetImageFilesystems()[0].GetFsId().GetMountpoint() != "/images" {
		t.Errorf("runtime config %v, image filesystem %v", config, info)
	}
	must[*runtimeapi.UpdateRuntimeConfigResponse](t)(c.UpdateRuntimeConfig(t.Context(), &runtimeapi.UpdateRuntimeConfigRequest{}))
}

func TestEveryMethodIsServed(t *testing.T) {
	t.Parallel()
	r, c := start(t, Options{PodCheckpoints: true})
	if got := len(r.methods); got != 43 {
		t.Errorf("cri-api has %d methods, the fake was written for 43", got)
	}
	for name := range r.methods {
		if name == runtimeapi.RuntimeService_GetContainerEvents_FullMethodName {
			continue // It does not end by itself; its own tests call it.
		}
		if _, err := rawCall(t.Context(), c, name, nil); status.Code(err) == codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
}
