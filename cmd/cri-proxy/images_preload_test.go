package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// preloads returns what status says of a handler's images.
func (p *proxy) preloads(handler string) []imageservice.Preload {
	p.t.Helper()
	body, err := admin.Get(p.t.Context(), filepath.Join(p.dir, "a"), "/v1/status")
	var r report
	if err := errors.Join(err, json.Unmarshal(body, &r)); err != nil {
		p.t.Fatal(err)
	}
	for _, h := range r.Handlers {
		if h.Name == handler {
			return h.Preload
		}
	}
	p.t.Fatalf("there is no handler %s in %s", handler, body)
	return nil
}

// preloaded waits until all that a handler preloads is there.
func (p *proxy) preloaded(handler string, images ...string) {
	p.t.Helper()
	eventually(p.t, "the images are preloaded", func() bool {
		found := p.preloads(handler)
		for n, image := range images {
			if len(found) != len(images) || found[n] != (imageservice.Preload{Image: image, State: imageservice.PreloadPresent}) {
				return false
			}
		}
		return true
	})
}

// pinned returns what each way of asking says of an image.
func (p *proxy) pinned(image string) map[string]bool {
	p.t.Helper()
	said := map[string]bool{}
	for _, i := range must(p.t, func() ([]*runtimeapi.Image, error) { return listBoth(p.t, p, nil) }) {
		said["ListImages "+i.GetId()] = i.GetPinned()
	}
	stream := must(p.t, func() (runtimeapi.ImageService_StreamImagesClient, error) {
		return p.images.StreamImages(p.t.Context(), &runtimeapi.StreamImagesRequest{})
	})
	for chunk, err := stream.Recv(); err == nil; chunk, err = stream.Recv() {
		for _, i := range chunk.GetImages() {
			said["StreamImages "+i.GetId()] = i.GetPinned()
		}
	}
	found := must(p.t, func() (*runtimeapi.ImageStatusResponse, error) {
		return p.images.ImageStatus(p.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	})
	said["ImageStatus "+found.GetImage().GetId()] = found.GetImage().GetPinned()
	return said
}

func must[T any](t *testing.T, ask func() (T, error)) T {
	t.Helper()
	answer, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestPreload: an image is pulled into its handler's store at start, however
// often that fails first, and is shown as pinned from then on. Another store's
// image of the same name is left alone.
func TestPreload(t *testing.T) {
	t.Parallel()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta := fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
	alpha.AddImage("app:1", &runtimeapi.Image{Id: "sha256:alpha"})
	beta.AddImage("other", &runtimeapi.Image{Id: "sha256:other"})
	beta.Publish("app:1", &runtimeapi.Image{Id: "sha256:beta"})
	beta.Inject("PullImage", fakeruntime.Fault{Times: 1, Err: status.Error(codes.Unknown, "registry: 503")})
	p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[backends.beta]
endpoint = "`+beta.Endpoint()+`"
[handlers.runc]
backend = "alpha"
[handlers.isolated]
backend = "beta"
[handlers.isolated.images]
preload = ["app:1"]`)
	eventually(t, "the first failure is shown", func() bool {
		found := p.preloads("isolated")
		return len(found) == 1 && found[0].Reason == "registry: 503" || found[0].State == imageservice.PreloadPresent
	})
	p.preloaded("isolated", "app:1")
	if n := len(beta.Calls("PullImage")); n != 2 || len(alpha.Calls("PullImage")) != 0 {
		t.Errorf("%d pulls on beta, want 2", n)
	}
	if got := arrivedPull(t, beta); got != (pullArrived{"isolated", "isolated"}) {
		t.Errorf("the pull arrived with %+v", got)
	}
	for what, pinned := range p.pinned("app:1") {
		if want := strings.HasSuffix(what, " sha256:beta"); pinned != want {
			t.Errorf("%s: pinned is %t, want %t", what, pinned, want)
		}
	}
	found, err := p.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "app:1", RuntimeHandler: "isolated"}})
	if err != nil || found.GetImage().GetId() != "sha256:beta" || !found.GetImage().GetPinned() {
		t.Errorf("status for the handler: %v, %v", found, err)
	}
	if n := len(p.preloads("runc")); n != 0 {
		t.Errorf("the other handler shows %d preloaded images", n)
	}
	stores := p.listing("").Stores
	if stores[0].Images[0].Pinned || !stores[1].Images[0].Pinned || stores[1].Images[1].Pinned {
		t.Errorf("pinned in the admin's list: %+v", stores)
	}
}

// TestPreloadInTheOnlyStore: there answers pass untouched as long as nothing is
// preloaded, and lose nothing when something is.
func TestPreloadInTheOnlyStore(t *testing.T) {
	t.Parallel()
	for _, preload := range []string{``, `"app"`} {
		t.Run("preload "+preload, func(t *testing.T) {
			t.Parallel()
			alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}, UnknownField: true})
			alpha.AddImage("app", &runtimeapi.Image{Id: "sha256:1"})
			alpha.AddImage("other", &runtimeapi.Image{Id: "sha256:2"})
			p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
[handlers.runc.images]
preload = [`+preload+`]`)
			for what, pinned := range p.pinned("app") {
				if want := preload != "" && strings.HasSuffix(what, " sha256:1"); pinned != want {
					t.Errorf("%s: pinned is %t, want %t", what, pinned, want)
				}
			}
			list, err := p.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
			if err != nil || len(list.GetImages()) != 2 || len(list.GetImages()[0].ProtoReflect().GetUnknown()) == 0 {
				t.Errorf("the image lost a field that cri-api does not know: %v, %v", list, err)
			}
			found, err := p.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "app"}, Verbose: true})
			if err != nil || len(found.GetInfo()) == 0 || len(found.ProtoReflect().GetUnknown()) == 0 {
				t.Errorf("the status lost something: %v, %v", found, err)
			}
			if len(alpha.Calls("PullImage")) != 0 {
				t.Error("an image that is there was pulled")
			}
		})
	}
}

// TestPreloadWaitsForItsStore: a backend that is away at start gets its images
// when it comes, while everything else is served.
func TestPreloadWaitsForItsStore(t *testing.T) {
	t.Parallel()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta := fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
	beta.Stop()
	p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[backends.beta]
endpoint = "`+beta.Endpoint()+`"
[handlers.runc]
backend = "alpha"
[handlers.isolated]
backend = "beta"
[handlers.isolated.images]
preload = ["app", "tool"]`)
	eventually(t, "both are shown as failed", func() bool {
		found := p.preloads("isolated")
		return strings.Contains(found[0].Reason, `backend "beta"`) && strings.Contains(found[1].Reason, `backend "beta"`)
	})
	beta.Restart()
	p.preloaded("isolated", "app", "tool")
}
