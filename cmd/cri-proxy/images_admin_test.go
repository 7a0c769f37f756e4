package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/imageservice"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// listing asks the daemon for its images.
func (p *proxy) listing(query string) imageservice.Listing {
	p.t.Helper()
	body, err := admin.Get(p.t.Context(), filepath.Join(p.dir, "a"), "/v1/images"+query)
	var l imageservice.Listing
	if err := errors.Join(err, json.Unmarshal(body, &l)); err != nil {
		p.t.Fatalf("GET /v1/images%s: %v\n%s", query, err, body)
	}
	return l
}

// post asks the daemon to pull or to copy, and returns all steps.
func (p *proxy) post(ctx context.Context, what, body string) ([]imageservice.Step, error) {
	p.t.Helper()
	response, err := admin.Do(ctx, filepath.Join(p.dir, "a"), http.MethodPost, "/v1/images/"+what, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var steps []imageservice.Step
	for decoder := json.NewDecoder(response.Body); ; {
		var s imageservice.Step
		if err := decoder.Decode(&s); errors.Is(err, io.EOF) {
			return steps, nil
		} else if err != nil {
			return steps, err
		}
		steps = append(steps, s)
	}
}

// TestImagesListed: what is in which store at the moment, also what came there
// past the proxy, and why something is not known.
func TestImagesListed(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, "[handlers.vm]\nbackend = \"beta\"\nruntime = \"isolated\"")
	alpha.AddImage("app:1", &runtimeapi.Image{Id: "sha256:1", Size: 10, Pinned: true})
	beta.AddImage("tool:1", &runtimeapi.Image{Id: "sha256:2", Size: 20, RepoDigests: []string{"docker.io/library/tool@sha256:22"}})
	app := imageservice.Image{
		ID: "sha256:1", Tags: []string{"docker.io/library/app:1"}, Size: 10, Pinned: true, Handlers: []string{"runc"},
	}
	tool := imageservice.Image{
		ID: "sha256:2", Tags: []string{"docker.io/library/tool:1"}, Digests: []string{"docker.io/library/tool@sha256:22"}, Size: 20,
		Handlers: []string{"isolated", "vm"},
	}
	whole := imageservice.Listing{Stores: []imageservice.Store{
		{Backend: "alpha", Handlers: []string{"runc"}, Images: []imageservice.Image{app}},
		{Backend: "beta", Handlers: []string{"isolated", "vm"}, Images: []imageservice.Image{tool}},
	}}
	ignoreMade := cmp.FilterPath(func(path cmp.Path) bool { return path.Last().String() == ".Digests" }, cmp.Comparer(func(a, b []string) bool {
		return len(a) == 1 && strings.Contains(a[0], "@sha256:") || len(b) == 1 && strings.Contains(b[0], "@sha256:")
	}))
	if diff := cmp.Diff(whole, p.listing(""), ignoreMade); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(imageservice.Listing{Stores: whole.Stores[1:]}, p.listing("?handler=vm"), ignoreMade); diff != "" {
		t.Errorf("of one handler (-want +got):\n%s", diff)
	}
	if _, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), "/v1/images?handler=none"); err == nil ||
		!strings.Contains(err.Error(), `404 Not Found: handler "none" is not configured; known: isolated, runc, vm`) {
		t.Errorf("of a handler that is not there: %v", err)
	}
	alpha.AddImage("from-outside", nil)
	if images := p.listing("").Stores[0].Images; len(images) != 2 || images[1].Tags[0] != "docker.io/library/from-outside:latest" {
		t.Errorf("after an image came from outside: %+v", images)
	}
	if r, err := p.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "from-outside"}}); err != nil || r.GetImage() == nil {
		t.Errorf("its status: %v, %v", r, err)
	}
	beta.Inject("ListImages", fakeruntime.Fault{Err: status.Error(codes.Internal, "disk on fire")})
	got := p.listing("")
	if len(got.Stores) != 2 || len(got.Stores[0].Images) != 2 || len(got.Stores[1].Images) != 0 || got.Stores[1].Error != "disk on fire" {
		t.Errorf("with one store that fails: %+v", got)
	}
	beta.Stop()
	if got := p.listing(""); !strings.Contains(got.Stores[1].Error, "away") {
		t.Errorf("with one store that is away: %+v", got)
	}
}

func TestImagesRequestsRefused(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	for _, c := range []struct{ what, body, want string }{
		{"pull", ``, "400 Bad Request: the request is not the JSON that it should be: EOF"},
		{"pull", `{"image":"app"`, "400 Bad Request: the request is not the JSON"},
		{"pull", `{"image":"app"}{}`, "400 Bad Request: the request has something after its JSON"},
		{"pull", `{"image":"app","force":true}`, `400 Bad Request: the request is not the JSON that it should be: json: unknown field "force"`},
		{"pull", `{"handler":"runc"}`, `400 Bad Request: the request has no "image"`},
		{"pull", `{"handler":"none","image":"app"}`, `404 Not Found: handler "none" is not configured; known: isolated, runc`},
		{"pull", `{"image":"` + strings.Repeat("a", 70_000) + `"}`, "413 Request Entity Too Large"},
		{"copy", `{"from":"runc","image":"app"}`, `400 Bad Request: the request has no "to"`},
		{"copy", `{"from":"none","to":"runc","image":"app"}`, `404 Not Found: handler "none"`},
		{"copy", `{"from":"runc","to":"none","image":"app"}`, `404 Not Found: handler "none"`},
		{"push", `{}`, "404 Not Found"},
	} {
		if steps, err := p.post(t.Context(), c.what, c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %.40s: %v, %v, want %s", c.what, c.body, steps, err, c.want)
		}
	}
	if _, err := admin.Get(t.Context(), filepath.Join(p.dir, "a"), "/v1/images/pull"); err == nil || !strings.Contains(err.Error(), "405") {
		t.Errorf("GET of a pull: %v", err)
	}
	if n := len(alpha.Calls("PullImage")) + len(beta.Calls("PullImage")); n != 0 {
		t.Errorf("%d pulls", n)
	}
}

// TestImagesPulled: into the handler's store, by the handler's rules; a dry run
// leaves everything as it is.
func TestImagesPulled(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, `[handlers.strict]
backend = "alpha"
runtime = "runc"
[handlers.strict.images]
allow = ["r.example/*"]`)
	alpha.AddImage("old", &runtimeapi.Image{Id: "sha256:old"})
	alpha.Inject("PullImage", fakeruntime.Fault{
		Match: func(c fakeruntime.Call) bool {
			r, ok := c.Request.(*runtimeapi.PullImageRequest)
			return ok && r.GetImage().GetImage() == "gone"
		},
		Err: status.Error(codes.NotFound, `failed to pull and unpack image "gone": not found`),
	})
	const name = "docker.io/library/"
	started := func(image, handler, backend string) imageservice.Step {
		return imageservice.Step{Started: &imageservice.Started{Image: image, Handler: handler, Backend: backend}}
	}
	result := func(id, message string) imageservice.Step {
		return imageservice.Step{Result: &imageservice.Result{ID: id, Message: message}}
	}
	failure := func(code, message string) imageservice.Step {
		return imageservice.Step{Error: &imageservice.Failure{Code: code, Message: message}}
	}
	app := fakeruntime.Start(t, fakeruntime.Options{}).AddImage("app", nil) // The id that every fake gives it.
	for _, c := range []struct {
		name, body string
		want       []imageservice.Step
	}{
		{"dry run", `{"image":"app","dryRun":true}`, []imageservice.Step{result("", "would pull "+name+"app:latest for handler runc to backend alpha, which does not have it")}},
		{"dry run of what is there", `{"image":"old","dryRun":true}`, []imageservice.Step{result("sha256:old", "would pull "+name+"old:latest for handler runc to backend alpha, which has it as sha256:old")}},
		{"dry run of what is not allowed", `{"handler":"strict","image":"app","dryRun":true}`, []imageservice.Step{
			failure("PermissionDenied", `handler "strict" has images.allow: image "`+name+`app:latest", in full "`+name+`app:latest", matches none of its patterns: r.example/*`),
		}},
		{"for the default handler", `{"image":"app"}`, []imageservice.Step{started(name+"app:latest", "runc", "alpha"), result(app, "pulled "+name+"app:latest for handler runc: "+app+" is on backend alpha")}},
		{"for another one", `{"handler":"isolated","image":"app"}`, []imageservice.Step{started(name+"app:latest", "isolated", "beta"), result(app, "pulled "+name+"app:latest for handler isolated: "+app+" is on backend beta")}},
		{"what is not allowed", `{"handler":"strict","image":"app"}`, []imageservice.Step{
			started(name+"app:latest", "strict", "alpha"),
			failure("PermissionDenied", `handler "strict" has images.allow: image "app", in full "`+name+`app:latest", matches none of its patterns: r.example/*`),
		}},
		{"what is nowhere", `{"image":"gone"}`, []imageservice.Step{started(name+"gone:latest", "runc", "alpha"), failure("NotFound", `failed to pull and unpack image "gone": not found`)}},
	} {
		before := len(alpha.Calls("PullImage")) + len(beta.Calls("PullImage"))
		got, err := p.post(t.Context(), "pull", c.body)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, diff)
		}
		want := 1
		if strings.Contains(c.name, "dry run") || strings.Contains(c.name, "not allowed") {
			want = 0
		}
		if n := len(alpha.Calls("PullImage")) + len(beta.Calls("PullImage")) - before; n != want {
			t.Errorf("%s: %d pulls upstream, want %d", c.name, n, want)
		}
	}
	if got := arrivedPull(t, beta); got != (pullArrived{"isolated", "isolated"}) {
		t.Errorf("arrived at beta with %+v", got)
	}
}

// TestImagesCopyRefused: what can be said without a containerd.
func TestImagesCopyRefused(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, `[handlers.same]
backend = "alpha"
runtime = "runc"
[handlers.strict]
backend = "beta"
runtime = "isolated"
[handlers.strict.images]
require_digest = true`)
	alpha.AddImage("app", &runtimeapi.Image{Id: "sha256:1"})
	alpha.AddImage("both", &runtimeapi.Image{Id: "sha256:2"})
	beta.AddImage("both", &runtimeapi.Image{Id: "sha256:2"})
	for _, c := range []struct{ to, image, want string }{
		{"isolated", "app", `FailedPrecondition: backend "alpha" is no containerd`},
		{"isolated", "nothing", `NotFound: image "docker.io/library/nothing:latest" is not on backend "alpha", the store of handler "runc"`},
		{"isolated", "both", "nothing to do: handler isolated has docker.io/library/both:latest on backend beta, with the same id"},
		{"same", "app", "nothing to do: handler same has docker.io/library/app:latest on backend alpha, with the same id"},
		{"strict", "app", `PermissionDenied: handler "strict" has images.require_digest: image "docker.io/library/app:latest" has no digest`},
	} {
		for _, dry := range []string{"false", "true"} {
			steps, err := p.post(t.Context(), "copy", `{"from":"runc","to":"`+c.to+`","image":"`+c.image+`","dryRun":`+dry+`}`)
			if err != nil || len(steps) != 1 || !strings.Contains(outcome(steps[0]), c.want) {
				t.Errorf("%s to %s, dry run %s: %v, %s, want %s", c.image, c.to, dry, err, outcome(steps[len(steps)-1]), c.want)
			}
		}
	}
}

// outcome is a last step in one line.
func outcome(s imageservice.Step) string {
	if s.Error != nil {
		return s.Error.Code + ": " + s.Error.Message
	}
	return s.Result.Message
}

// TestImagesPullEndsWithItsCaller: who goes away takes the pull along.
func TestImagesPullEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	p, alpha, _ := twoBackends(t)
	began, ended := hangingPull(alpha)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.post(ctx, "pull", `{"image":"app"}`)
		done <- err
	}()
	<-began
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	<-ended
}

// TestImagesPullEndsWithTheDaemon: a pull does not hold up the daemon's end, and
// its caller is told.
func TestImagesPullEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	p, alpha, _ := twoBackends(t)
	began, ended := hangingPull(alpha)
	var last imageservice.Step
	done := make(chan error, 1)
	go func() {
		steps, err := p.post(t.Context(), "pull", `{"image":"app"}`)
		if len(steps) > 0 {
			last = steps[len(steps)-1]
		}
		done <- err
	}()
	<-began
	p.stop()
	<-ended
	if err := <-done; err != nil || last.Error == nil || last.Error.Code != "Canceled" {
		t.Errorf("the caller got %v, and as the last step %+v", err, last)
	}
}

// hangingPull makes pulls hang until they are cancelled.
func hangingPull(r *fakeruntime.Runtime) (began, ended chan struct{}) {
	began, ended = make(chan struct{}), make(chan struct{})
	r.Configure(func(o *fakeruntime.Options) {
		o.Pull = func(ctx context.Context, _ *runtimeapi.PullImageRequest) error {
			close(began)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}
	})
	return began, ended
}

// TestImagesPullInterrupted: Ctrl-C ends the command, which says so, and the
// pull; the daemon lives on.
func TestImagesPullInterrupted(t *testing.T) {
	t.Parallel()
	r := alpha(t)
	n := newNode(t, r)
	daemon := n.start()
	daemon.serving()
	began, ended := hangingPull(r)
	var out, errs logBuffer
	command := exec.CommandContext(t.Context(), "cri-proxy", "images", "pull", "app", "--admin", n.path("a"))
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := command.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	err := command.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(errs.String(), "cri-proxy: interrupted") {
		t.Errorf("it ended with %v and said %q, %q", err, out.String(), errs.String())
	}
	<-ended
	daemon.stop()
}
