package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// listBoth lists the images by both methods, which must agree.
func listBoth(t *testing.T, p *proxy, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	t.Helper()
	list, err := p.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{Filter: filter})
	stream, streamErr := p.images.StreamImages(t.Context(), &runtimeapi.StreamImagesRequest{Filter: filter})
	var streamed []*runtimeapi.Image
	for streamErr == nil {
		var chunk *runtimeapi.StreamImagesResponse
		chunk, streamErr = stream.Recv()
		streamed = append(streamed, chunk.GetImages()...)
	}
	if errors.Is(streamErr, io.EOF) {
		streamErr = nil
	}
	if status.Code(err) != status.Code(streamErr) || !slices.Equal(ids(list.GetImages()), ids(streamed)) {
		t.Errorf("ListImages: %v, %v\nStreamImages: %v, %v", ids(list.GetImages()), err, ids(streamed), streamErr)
	}
	return list.GetImages(), err
}

// TestListImages: each id once, with all that some store says of it.
func TestListImages(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	for n, fake := range []*fakeruntime.Runtime{alpha, beta} {
		fake.AddImage("app", &runtimeapi.Image{Id: "sha256:1", RepoTags: []string{fmt.Sprintf("app:%d", n)}, Size: uint64(n + 1), Pinned: n == 1})
		fake.AddImage(fmt.Sprintf("own%d", n), &runtimeapi.Image{Id: fmt.Sprintf("sha256:own%d", n)})
	}
	images, err := listBoth(t, p, nil)
	if err != nil || !slices.Equal(ids(images), []string{"sha256:1", "sha256:own0", "sha256:own1"}) {
		t.Fatalf("%v, %v", images, err)
	}
	for _, i := range images {
		if i.GetSpec().GetRuntimeHandler() != "" {
			t.Errorf("%s names a handler", i.GetId())
		}
		if i.GetId() != "sha256:1" {
			continue
		}
		if !slices.Equal(i.GetRepoTags(), []string{"app:0", "docker.io/library/app:latest", "app:1"}) || !i.GetPinned() || i.GetSize() != 2 {
			t.Errorf("merged: %v", i)
		}
	}
	filter := &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{RuntimeHandler: "isolated"}}
	if images, err := listBoth(t, p, filter); err != nil || !slices.Equal(ids(images), []string{"sha256:1", "sha256:own1"}) {
		t.Errorf("of one handler: %v, %v", ids(images), err)
	}
	filter.Image.RuntimeHandler = "nope"
	_, err = listBoth(t, p, filter)
	wantCode(t, "an unknown handler", err, codes.InvalidArgument, `"nope"`)
}

// TestListImagesRenamed: the backend's name arrives, in a stream too.
func TestListImagesRenamed(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t, `[handlers.vm]
backend = "beta"
runtime = "isolated-vm"`)
	if _, err := listBoth(t, p, &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{RuntimeHandler: "vm"}}); err != nil {
		t.Fatal(err)
	}
	_, list := lastCall[*runtimeapi.ListImagesRequest](t, beta, "ListImages")
	_, stream := lastCall[*runtimeapi.StreamImagesRequest](t, beta, "StreamImages")
	for _, got := range []string{list.GetFilter().GetImage().GetRuntimeHandler(), stream.GetFilter().GetImage().GetRuntimeHandler()} {
		if got != "isolated-vm" {
			t.Errorf("arrived for %q, want isolated-vm", got)
		}
	}
}

// TestListImagesAway: a part is never the whole, unless nobody needs the rest.
func TestListImagesAway(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("other", nil)
	pod := p.run("b", "isolated")
	beta.Inject("ListImages", fakeruntime.Fault{Hang: true, Times: 1})
	_, err := p.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
	wantCode(t, "a store that hangs", err, codes.Unavailable, `"beta"`)
	p.waitUp("beta")
	beta.Inject("ListImages", fakeruntime.Fault{Err: status.Error(codes.Internal, "broken"), Times: 2})
	_, err = listBoth(t, p, nil)
	wantCode(t, "a store that fails", err, codes.Internal, "broken")
	beta.Stop()
	p.waitAway("beta")
	_, err = listBoth(t, p, nil)
	wantCode(t, "a store that is away", err, codes.Unavailable, `"beta"`)

	beta.Restart()
	p.waitUp("beta")
	if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}
	beta.Stop()
	p.waitAway("beta")
	if images, err := listBoth(t, p, nil); err != nil || len(images) != 1 {
		t.Errorf("with an empty backend away: %v, %v", ids(images), err)
	}
	p.restart()
	_, err = listBoth(t, p, nil)
	wantCode(t, "with a backend of which nothing is known", err, codes.Unavailable, `"beta"`)
}

// TestRemoveImage: an image goes from all stores, or the kubelet tries again.
func TestRemoveImage(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	remove := func(handler string) error {
		_, err := p.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: handler}})
		return err
	}
	left := func() int { return len(alpha.Images()) + len(beta.Images()) }
	both := func() { alpha.AddImage("app", nil); beta.AddImage("app", nil) }
	for _, handler := range []string{"", "isolated"} {
		both()
		if err := remove(handler); err != nil || left() != 0 {
			t.Errorf("for %q: %v, %d images are left", handler, err, left())
		}
	}
	both()
	wantCode(t, "an unknown handler", remove("nope"), codes.InvalidArgument, `"nope"`)
	if left() != 2 {
		t.Errorf("an unknown handler removed images, %d are left", left())
	}
	notFound := fakeruntime.Fault{Err: status.Error(codes.NotFound, "not here"), Times: 1}
	for _, without := range []*fakeruntime.Runtime{alpha, beta} {
		both()
		without.Inject("RemoveImage", notFound)
		if err := remove(""); err != nil || left() != 1 {
			t.Errorf("not found in one: %v, %d images are left", err, left())
		}
	}
	for _, broken := range []*fakeruntime.Runtime{alpha, beta} {
		both()
		broken.Inject("RemoveImage", fakeruntime.Fault{Err: status.Error(codes.Internal, "in use"), Times: 1})
		wantCode(t, "one store refuses", remove(""), codes.Internal, "in use")
	}
	for name, away := range map[string]*fakeruntime.Runtime{"beta": beta, "alpha": alpha} {
		away.Stop()
		p.waitAway(name)
		wantCode(t, name+" is away", remove(""), codes.Unavailable, `"`+name+`"`)
		away.Restart()
		p.waitUp(name)
	}
}

// TestImageFsInfo: the default store's filesystems stand first, and need no
// other store.
func TestImageFsInfo(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	mounts := func() (found []string) {
		info, err := p.images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]*runtimeapi.FilesystemUsage{info.GetImageFilesystems(), info.GetContainerFilesystems()} {
			for _, f := range list {
				found = append(found, f.GetFsId().GetMountpoint())
			}
		}
		return found
	}
	want := func(when string, want ...string) {
		t.Helper()
		if got := mounts(); !slices.Equal(got, append(want, want...)) {
			t.Errorf("%s: %v, want %v twice", when, got, want)
		}
	}
	want("two filesystems", "/var/lib/alpha", "/var/lib/beta")
	beta.Inject("ImageFsInfo", fakeruntime.Fault{Hang: true, Times: 1})
	want("one hangs", "/var/lib/alpha")
	p.waitUp("beta")
	beta.Configure(func(o *fakeruntime.Options) { o.ImageMountpoint = "/var/lib/alpha" })
	want("one filesystem", "/var/lib/alpha")
	beta.Stop()
	p.waitAway("beta")
	want("the other store is away", "/var/lib/alpha")
	beta.Restart()
	p.waitUp("beta")
	alpha.Stop()
	p.waitAway("alpha")
	_, err := p.images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	wantCode(t, "the default store is away", err, codes.Unavailable, `"alpha"`)
}

// TestImageServiceOfTheFuture: a method that is not known is the only store's,
// and of several nobody's.
func TestImageServiceOfTheFuture(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	err := p.invoke(t.Context(), "/runtime.v1.ImageService/Sign", nil)
	wantCode(t, "two stores", err, codes.Unimplemented, "Sign")
	wantCalls(t, "Sign", map[*fakeruntime.Runtime]int{alpha: 0, beta: 0})
	p.stop()
	alone := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
`)
	alpha.Configure(func(o *fakeruntime.Options) {
		o.UnknownMethod = func(string, []byte) ([]byte, error) { return nil, nil }
	})
	if err := alone.invoke(t.Context(), "/runtime.v1.ImageService/Sign", nil); err != nil {
		t.Error(err)
	}
}

// TestImageCallsAreCountedOnce: each call, however many stores it asked and
// whatever came of it, is one in the metrics.
func TestImageCallsAreCountedOnce(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	alpha.AddImage("own", nil)
	beta.AddImage("own", nil)
	k.wantPresent(b, "own", true)
	k.wantUser("absent", "absent")
	if _, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: k.spec(b, "app"), SandboxConfig: b.now()}); err != nil {
		t.Error(err)
	}
	if err := k.create(b, "c", "missing", "missing"); err != nil {
		t.Error(err)
	}
	if _, err := listBoth(t, p, nil); err != nil {
		t.Error(err)
	}
	beta.Inject("RemoveImage", fakeruntime.Fault{Err: status.Error(codes.Internal, "in use")})
	_, err := p.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "own"}}, grpc.WaitForReady(true))
	wantCode(t, "remove", err, codes.Internal)
	if _, err := p.images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{}); err != nil {
		t.Error(err)
	}
	text, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]int{
		"ImageStatus": 2, "PullImage": 1, "CreateContainer": 1, "ListImages": 1, "StreamImages": 1, "RemoveImage": 1, "ImageFsInfo": 1,
	} {
		if got := counted(t, string(text), method); got != want {
			t.Errorf("%d calls of %s were counted, want %d", got, method, want)
		}
	}
	if !strings.Contains(string(text), `cri_proxy_requests_total{backend="beta",code="OK",method="PullImage"} 1`) {
		t.Error("the pull was not counted for beta")
	}
}

// counted sums the calls of a method in the metrics.
func counted(t *testing.T, metrics, method string) (sum int) {
	t.Helper()
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, "cri_proxy_requests_total{") || !strings.Contains(line, `method="`+method+`"`) {
			continue
		}
		var n int
		if _, err := fmt.Sscan(line[strings.LastIndex(line, " "):], &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}
