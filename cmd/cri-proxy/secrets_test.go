package main

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestErrorQuotesSecret: a runtime that quotes the credentials in its error, as
// containerd does with an auth that it cannot read, is quoted to the caller and
// not in the log.
func TestErrorQuotesSecret(t *testing.T) {
	t.Parallel()
	const secret = "no-colon-in-here"
	for name, auth := range map[string]*runtimeapi.AuthConfig{
		"auth":     {Auth: base64.StdEncoding.EncodeToString([]byte(secret))},
		"password": {Username: "user", Password: secret},
		"token":    {IdentityToken: secret},
	} {
		for _, settings := range []string{"", "max_parallel_pulls = 1"} { // Both ways of a pull.
			t.Run(name+" "+settings, func(t *testing.T) {
				t.Parallel()
				runtime := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha"})
				runtime.Inject("PullImage", fakeruntime.Fault{Err: status.Errorf(codes.Unknown, "invalid decoded auth: %q", secret)})
				written := &bytes.Buffer{}
				logger := logrus.New()
				logger.SetOutput(written)
				logger.SetLevel(logrus.TraceLevel)
				p := startLogging(t, "default_handler = \"runc\"\nbackends.alpha.endpoint = \""+runtime.Endpoint()+
					"\"\n[handlers.runc]\nbackend = \"alpha\"\n[handlers.runc.images]\n"+settings, logrus.NewEntry(logger))
				_, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "private"}, Auth: auth})
				if err == nil || !strings.Contains(err.Error(), secret) {
					t.Errorf("the caller got %v, want the runtime's own words", err)
				}
				p.stop() // Then the log is whole, and nobody writes it.
				if log := written.String(); strings.Contains(log, secret) || !strings.Contains(log, "method=PullImage") {
					t.Errorf("the log has the secret, or nothing of the call:\n%s", log)
				}
			})
		}
	}
}
