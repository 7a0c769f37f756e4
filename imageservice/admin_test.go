package imageservice

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ask sends a request to the admin API and returns the body of its answer.
func (n *node) ask(method, path, body string) string {
	n.t.Helper()
	answer := httptest.NewRecorder()
	n.service.Admin().ServeHTTP(answer, httptest.NewRequestWithContext(n.t.Context(), method, path, strings.NewReader(body)))
	if answer.Code != http.StatusOK {
		n.t.Errorf("%s %s: %d: %s", method, path, answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// having returns, of the only image of the only store, the handlers that have it,
// and what is wrong with the store.
func (n *node) having() (handlers []string, problem string) {
	n.t.Helper()
	var l Listing
	if err := json.Unmarshal([]byte(n.ask(http.MethodGet, "/v1/images", "")), &l); err != nil || len(l.Stores) != 1 || len(l.Stores[0].Images) != 1 {
		n.t.Fatalf("%+v: %v", l, err)
	}
	return l.Stores[0].Images[0].Handlers, l.Stores[0].Error
}

// copied returns the last step of a copy to the handler tenant.
func (n *node) copied(image, more string) (last Step) {
	n.t.Helper()
	body := n.ask(http.MethodPost, "/v1/images/copy", `{"from":"open","to":"tenant","image":"`+image+`"`+more+`}`)
	lines := strings.Split(strings.TrimSpace(body), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		n.t.Fatal(err)
	}
	return last
}

// TestAdminOneStoreTwoSnapshotters: in one store an image is the handler's that
// has it unpacked, and a copy to the other one only unpacks.
func TestAdminOneStoreTwoSnapshotters(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"as-requested", "never", "always"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			k, u, fake := erofs(t, `pull_policy = "`+policy+`"`, ways()["one store, gate off"])
			const what = "unpack docker.io/library/app:latest on backend a for the snapshotter of handler tenant"
			wantHandlers := func(want ...string) {
				t.Helper()
				got, problem := k.having()
				if diff := cmp.Diff(want, got); diff != "" || problem != "" {
					t.Errorf("handlers (-want +got), %s:\n%s", problem, diff)
				}
			}
			wantHandlers("open")
			if diff := cmp.Diff(Step{Result: &Result{ID: u.id, Message: "would " + what}}, k.copied("app", `,"dryRun":true`)); diff != "" {
				t.Errorf("dry run (-want +got):\n%s", diff)
			}
			u.wantMade(t, 0)
			if diff := cmp.Diff(Step{Result: &Result{ID: u.id, Message: "done: " + what}}, k.copied("app", "")); diff != "" {
				t.Errorf("copy (-want +got):\n%s", diff)
			}
			u.wantMade(t, 1)
			wantHandlers("open", "tenant")
			again := k.copied("app", "")
			if again.Result == nil || !strings.HasPrefix(again.Result.Message, "nothing to do: handler tenant has docker.io/library/app:latest") {
				t.Errorf("once more: %+v", again)
			}
			u.wantMade(t, 1)
			if n := len(fake.Calls("PullImage")); n != 0 {
				t.Errorf("%d pulls", n)
			}
		})
	}
}

// TestAdminListSaysWhatIsNotKnown: a containerd that does not say where an image
// is unpacked hides neither the image nor the handlers that do not ask for it.
func TestAdminListSaysWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	k, u, _ := erofs(t, "", ways()["one store, gate off"])
	u.set(status.Error(codes.Internal, "no such disk"), erofsApp)
	handlers, problem := k.having()
	if diff := cmp.Diff([]string{"open"}, handlers); diff != "" || !strings.Contains(problem, "no such disk") {
		t.Errorf("handlers (-want +got), %q:\n%s", problem, diff)
	}
}

// TestAdminByHand: what somebody who looks after the node pulls or copies does
// not ask for the handler's pull_policy, which is about pods, but for the images
// that its pods may have.
func TestAdminByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rules, image, want string }{
		{`pull_policy = "never"`, "app", ""},
		{`pull_policy = "always"`, "app", ""},
		{`require_digest = true`, "app", "PermissionDenied"},
		{`allow = ["r.example/*"]`, "app", "PermissionDenied"},
		{`allow = ["r.example/*"]`, "r.example/app:1", ""},
	} {
		n, open, tenant := twoStoresOf(t, c.rules)
		open.AddImage(c.image, nil)
		want := 1
		if c.want != "" {
			want = 0
			if last := n.copied(c.image, ""); last.Error == nil || last.Error.Code != c.want {
				t.Errorf("copy of %s with %s: %+v, want %s", c.image, c.rules, last, c.want)
			}
		}
		body := n.ask(http.MethodPost, "/v1/images/pull", `{"handler":"tenant","image":"`+c.image+`"}`)
		if !strings.Contains(body, `{"result":{"id":"sha256:`) == (c.want == "") || !strings.Contains(body, c.want) {
			t.Errorf("pull of %s with %s: %s", c.image, c.rules, body)
		}
		if got := len(tenant.Calls("PullImage")); got != want {
			t.Errorf("pull of %s with %s: %d upstream, want %d", c.image, c.rules, got, want)
		}
	}
}
