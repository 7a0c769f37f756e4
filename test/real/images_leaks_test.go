package real_test

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// wantNoLeaks reads all logs of a rig, the proxies' state and what they answer,
// and looks for the passwords. It then leaves one in each kind of place, for a
// search that finds nothing proves nothing.
func wantNoLeaks(ctx context.Context, t *testing.T, r *rig.Rig) {
	t.Helper()
	found, files, err := r.Leaks(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, leak := range found {
		t.Errorf("a secret is seen: %s", leak)
	}
	const user = "planted"
	password := r.Secret(user)
	planted := map[string]string{
		"planted.log": "in a log: " + password + ".",
		"headers.log": "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)),
	}
	for name, text := range planted {
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	again, _, err := r.Leaks(ctx)
	if err != nil {
		t.Error(err)
	}
	if len(again) != len(found)+len(planted) {
		t.Errorf("of %d secrets that were planted the search found %d", len(planted), len(again)-len(found))
	}
	t.Logf("%d secrets are seen in %d files", len(found), files)
}
