package imageservice

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestHandlersSecretStays: a runtime that quotes a handler's password in its
// error tells it neither to a caller, who may show it in a pod's events, nor to
// the log. What the request brought comes back as it was.
func TestHandlersSecretStays(t *testing.T) {
	t.Parallel()
	const password = `pass"word\of-the-handler`
	n, _, tenant := twoStoresOf(t, fmt.Sprintf("auth_files = [%q]", authFile(t, map[string]string{"r.example": password})))
	tenant.Configure(func(o *fakeruntime.Options) {
		o.Pull = func(_ context.Context, request *runtimeapi.PullImageRequest) error {
			used := request.GetAuth().GetPassword()
			return status.Errorf(codes.PermissionDenied, "%s is refused, that is %q", used, used)
		}
	})
	k := kubeletOf{node: n}
	a := n.run("a", "tenant")
	_, pulled := k.pullFor(t.Context(), a, "r.example/app", nil)
	_, byHand := n.service.Pull(t.Context(), "tenant", "r.example/app")
	created := k.create(a, "c", "r.example/create", "r.example/create")
	for way, err := range map[string]error{"a pod's pull": pulled, "by hand": byHand, "a create": created} {
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "is refused, that is") {
			t.Errorf("%s: %v, want the runtime's code and words", way, err)
		}
		if err != nil && strings.Contains(err.Error(), "of-the-handler") {
			t.Errorf("%s tells the handler's password: %v", way, err)
		}
	}
	if log := n.log.String(); strings.Contains(log, "of-the-handler") {
		t.Errorf("the log has the handler's password:\n%s", log)
	}
	if _, err := k.pullFor(t.Context(), a, "r.example/app", login("own")); !strings.Contains(fmt.Sprint(err), "own is refused") {
		t.Errorf("with the request's own: %v, want the runtime's own words", err)
	}
}

// TestMayQuote: which errors are not for the log.
func TestMayQuote(t *testing.T) {
	t.Parallel()
	plain, odd := &runtimeapi.AuthConfig{Password: "word"}, &runtimeapi.AuthConfig{Password: `wo"rd`}
	for name, c := range map[string]struct {
		auth *runtimeapi.AuthConfig
		text string
		want bool
	}{
		"nothing brought":    {nil, "refused", false},
		"not quoted":         {plain, "refused", false},
		"as it is":           {plain, "refused: word", true},
		"escaped":            {odd, fmt.Sprintf("refused: %q", odd.GetPassword()), true},
		"an auth, decoded":   {&runtimeapi.AuthConfig{Auth: "eA=="}, "refused", true},
		"an identity token":  {&runtimeapi.AuthConfig{IdentityToken: "x"}, "refused", true},
		"a registry's token": {&runtimeapi.AuthConfig{RegistryToken: "x"}, "refused", true},
	} {
		if got := mayQuote(status.Error(codes.Unknown, c.text), c.auth); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
	if mayQuote(nil, &runtimeapi.AuthConfig{Auth: "eA=="}) {
		t.Error("no error quotes nothing")
	}
}
