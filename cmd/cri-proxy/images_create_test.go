package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestCreatePullsMissingImage: an image that is missing in the store of the
// container's pod is pulled there, and nowhere else.
func TestCreatePullsMissingImage(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, `[handlers.vm]
backend = "beta"
runtime = "isolated-vm"`)
	beta.Configure(func(o *fakeruntime.Options) { o.Runtimes = append(o.Runtimes, "isolated-vm") })
	k := kubelet{t: t, p: p}
	v := k.run("v", "vm")
	alpha.AddImage("app", nil)
	request := k.createRequest(v, "c", "app", "app:latest")
	request.Config.Image.Annotations = map[string]string{"spec": "kept"}
	sent := withUnknown(t, request)
	if err := p.invoke(t.Context(), runtimeapi.RuntimeService_CreateContainer_FullMethodName, sent); err != nil {
		t.Fatal(err)
	}
	_, pull := lastCall[*runtimeapi.PullImageRequest](t, beta, "PullImage")
	want := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: "app:latest", RuntimeHandler: "isolated-vm", Annotations: map[string]string{"spec": "kept"}},
		SandboxConfig: &runtimeapi.PodSandboxConfig{
			Metadata: v.config.GetMetadata(), Labels: v.config.GetLabels(), Annotations: v.edited(handlerAnnotation, "isolated-vm").annotations,
		},
	}
	if !proto.Equal(pull, want) {
		t.Errorf("pulled with %v\nwant %v", pull, want)
	}
	if call, _ := lastCall[*runtimeapi.CreateContainerRequest](t, beta, "CreateContainer"); string(call.Raw) != string(sent) {
		t.Error("the create was changed without need")
	}
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0, beta: 1})
	k.mustCreate(v, "d", "app:latest")
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{beta: 1})
	wantCalls(t, "ImageStatus", map[*fakeruntime.Runtime]int{alpha: 0})
}

// TestCreateByForeignID: the id that the kubelet saw in one store becomes the
// one that the same name has in the container's store, pulled only if it must be.
func TestCreateByForeignID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		present, sameID bool
		pulls           int
	}{
		"absent, one id":     {false, true, 1},
		"absent, another id": {false, false, 1},
		"there, another id":  {true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			k := kubelet{t: t, p: p}
			b := k.run("b", "isolated")
			id := alpha.AddImage("app", nil)
			own := id
			if !c.sameID {
				own = "sha256:" + strings.Repeat("b", 64)
			}
			beta.Publish("app", &runtimeapi.Image{Id: own})
			if c.present {
				beta.AddImage("app", nil)
			}
			request := k.createRequest(b, "c", "app", id)
			if err := p.invoke(t.Context(), runtimeapi.RuntimeService_CreateContainer_FullMethodName, withUnknown(t, request)); err != nil {
				t.Fatal(err)
			}
			_, got := lastCall[*runtimeapi.CreateContainerRequest](t, beta, "CreateContainer")
			if !hasUnknown(got) {
				t.Error("the unknown field was lost")
			}
			got.ProtoReflect().SetUnknown(nil)
			request.Config.Image.Image = own
			if !proto.Equal(got, request) {
				t.Errorf("arrived %v\nwant %v", got, request)
			}
			wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0, beta: c.pulls})
		})
	}
}

// TestCreateByIDOnly: an id without a name cannot be pulled; the runtime says
// that it is not there.
func TestCreateByIDOnly(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	digest := strings.Repeat("a", 64)
	for _, id := range []string{"sha256:" + digest, digest} {
		for _, user := range []string{"", id} {
			request := k.createRequest(b, "c", user, id)
			_, err := p.runtime.CreateContainer(t.Context(), request)
			_, direct := runtimeOf(t, beta).CreateContainer(t.Context(), request)
			wantCode(t, id, err, codes.NotFound, status.Convert(direct).Message())
		}
	}
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0, beta: 0})
	_, err := p.runtime.CreateContainer(t.Context(), k.createRequest(b, "c", "", ""))
	_, direct := runtimeOf(t, beta).CreateContainer(t.Context(), k.createRequest(b, "c", "", ""))
	wantCode(t, "no image", err, status.Code(direct), status.Convert(direct).Message())
}

// TestCreateCannotPull: code and details of the runtime's error stay; the text
// says what was tried.
func TestCreateCannotPull(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	refused, err := status.New(codes.PermissionDenied, "registry says no").WithDetails(&runtimeapi.ImageSpec{Image: "denied"})
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"app", "sha256:" + strings.Repeat("a", 64)} {
		beta.Inject("PullImage", fakeruntime.Fault{Err: refused.Err(), Times: 1})
		err = k.create(b, "c", "app", ref)
		wantCode(t, ref, err, codes.PermissionDenied, `image "app" is not on backend "beta" and cannot be pulled there: registry says no`)
		if details := status.Convert(err).Details(); len(details) != 1 {
			t.Errorf("%s: details %v, want the runtime's", ref, details)
		}
	}
	wantCalls(t, "CreateContainer", map[*fakeruntime.Runtime]int{beta: 0})
	beta.Inject("ImageStatus", fakeruntime.Fault{Err: status.Error(codes.Internal, "broken"), Times: 1})
	wantCode(t, "the store is broken", k.create(b, "c", "app", "app"), codes.Internal, "broken")
	beta.Stop()
	p.waitAway("beta")
	wantCode(t, "the store is away", k.create(b, "c", "app", "app"), codes.Unavailable, `"beta"`)
}

// TestCreateKeepsDeadline: a pull on the way to a create has the caller's
// time and no more.
func TestCreateKeepsDeadline(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	deadline, _ := ctx.Deadline()
	beta.Inject("PullImage", fakeruntime.Fault{Hang: true, Times: 1})
	_, err := p.runtime.CreateContainer(ctx, k.createRequest(b, "c", "app", "app"))
	wantCode(t, "a pull that hangs", err, codes.DeadlineExceeded)
	call, _ := lastCall[*runtimeapi.PullImageRequest](t, beta, "PullImage")
	if late := call.Deadline.Sub(deadline); call.Deadline.IsZero() || late > 50*time.Millisecond {
		t.Errorf("the pull's deadline is %v, the caller's %v", call.Deadline, deadline)
	}
	if err := k.create(b, "c", "app", "app"); err != nil {
		t.Fatal(err)
	}
	if call, _ := lastCall[*runtimeapi.PullImageRequest](t, beta, "PullImage"); !call.Deadline.IsZero() {
		t.Errorf("a deadline of %v was made up", call.Deadline)
	}
}

// TestCreateOneStore: where there is one store nothing is asked before a
// create.
func TestCreateOneStore(t *testing.T) {
	t.Parallel()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
`)
	k := kubelet{t: t, p: p}
	a := k.run("a", "runc")
	direct := "failed to resolve image"
	wantCode(t, "a missing image", k.create(a, "c", "app", "app"), codes.NotFound, direct)
	alpha.AddImage("app", nil)
	k.mustCreate(a, "c", "app")
	wantCalls(t, "ImageStatus", map[*fakeruntime.Runtime]int{alpha: 0})
	wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0})
}
