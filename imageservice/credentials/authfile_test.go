package credentials

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func authOf(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// authFileCase is a file and what is in it, or why it is refused.
type authFileCase struct {
	name, content string
	legacy        bool
	want          []entry
	wantError     string
}

func readable() []authFileCase {
	return []authFileCase{
		{name: "nothing", content: `{}`},
		{name: "other keys", content: `{"psFormat": "x", "auths": {}, "credHelpers": {}, "credsStore": ""}`},
		{name: "no auths", content: `{"auths": null}`},
		{
			name: "username and password", content: `{"auths": {"a.io": {"username": "u", "password": "p:w", "email": "e"}}}`,
			want: []entry{{"a.io", Credential{Username: "u", Password: "p:w"}}},
		},
		{
			name: "auth wins", content: `{"auths": {"a.io": {"username": "u", "password": "p", "auth": "` + authOf("x:y") + `"}}}`,
			want: []entry{{"a.io", Credential{Username: "x", Password: "y"}}},
		},
		{
			name: "padded", content: `{"auths": {"a.io": {"auth": "dXNlcjpwYXNzdw=="}}}`,
			want: []entry{{"a.io", Credential{Username: "user", Password: "passw"}}},
		},
		{
			name: "not padded", content: `{"auths": {"a.io": {"auth": "dXNlcjpwYXNzdw"}}}`,
			want: []entry{{"a.io", Credential{Username: "user", Password: "passw"}}},
		},
		{
			name: "split at the first colon", content: `{"auths": {"a.io": {"auth": "` + authOf("u:p:w:") + `"}}}`,
			want: []entry{{"a.io", Credential{Username: "u", Password: "p:w:"}}},
		},
		{
			name: "both empty", content: `{"auths": {"a.io": {"auth": "` + authOf(":") + `"}, "b.io": {}}}`,
			want: []entry{{"a.io", Credential{}}, {"b.io", Credential{}}},
		},
		{
			name: "by location", content: `{"auths": {"b.io": {"username": "b"}, "a.io": {"username": "a"}}}`,
			want: []entry{{"a.io", Credential{Username: "a"}}, {"b.io", Credential{Username: "b"}}},
		},
		{
			name: "old shape in an old file", legacy: true, content: `{"a.io": {"username": "a"}}`,
			want: []entry{{"a.io", Credential{Username: "a"}}},
		},
		{name: "old shape in a new file", content: `{"a.io": {"username": "a"}}`},
	}
}

func unreadable() []authFileCase {
	return []authFileCase{
		{name: "empty", content: ``, wantError: "not JSON"},
		{name: "no object", content: `[1]`, wantError: "must be a JSON object"},
		{name: "cut off", content: `{"auths": {"a.io": {"password": "hunter2`, wantError: "not JSON, from byte"},
		{name: "auths is a list", content: `{"auths": ["hunter2"]}`, wantError: `field "auths" has the wrong type`},
		{name: "entry is a string", content: `{"auths": {"a.io": "hunter2"}}`, wantError: `entry "a.io": it must be a JSON object`},
		{name: "password is a number", content: `{"auths": {"a.io": {"password": 1}}}`, wantError: `entry "a.io": field "password"`},
		{name: "auth is not base64", content: `{"auths": {"a.io": {"auth": "hunter2:%"}}}`, wantError: `entry "a.io": auth is not base64`},
		{name: "auth has no colon", content: `{"auths": {"a.io": {"auth": "` + authOf("hunter2") + `"}}}`, wantError: "base64 of username:password"},
		{name: "padding in the middle", content: `{"auths": {"a.io": {"auth": "dXNlcjpwYXNzdw==x"}}}`, wantError: "not base64"},
		{name: "URL's base64", content: `{"auths": {"a.io": {"auth": "dTr_-w"}}}`, wantError: "not base64"},
		{name: "user in the location", content: `{"auths": {"me:hunter2@a.io": {"auth": "!"}}}`, wantError: `entry "a.io"`},
		{name: "helpers", content: `{"auths": {}, "credHelpers": {"a.io": "ecr-login"}}`, wantError: "credHelpers: credential helpers are not run; name a kubelet CredentialProviderConfig in credential_providers instead"},
		{name: "store", content: `{"credsStore": "pass"}`, wantError: "credsStore: credential helpers are not run"},
	}
}

func TestAuthFile(t *testing.T) {
	t.Parallel()
	for _, tt := range append(readable(), unreadable()...) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := authEntries(tt.legacy, []byte(tt.content))
			if tt.wantError == "" && err != nil {
				t.Fatal(err)
			}
			if tt.wantError != "" && (err == nil || !strings.Contains(err.Error(), tt.wantError) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("the error is %v, want one with %q and without the password", err, tt.wantError)
			}
			// A Credential does not show itself; compared as another type it does.
			type plainEntry struct{ Location, Username, Password string }
			reveal := cmp.Transformer("reveal", func(e entry) plainEntry {
				return plainEntry{e.location, e.credential.Username, e.credential.Password}
			})
			if diff := cmp.Diff(tt.want, got, reveal); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add(false, `{"auths": {"a.io": {"auth": "dXNlcjpwYXNzdw=="}, "b.io:5000/x": {"username": "u", "password": "p"}}}`)
	f.Add(false, `{"credHelpers": {"a.io": "ecr-login"}, "credsStore": "x"}`)
	f.Add(true, `{"https://index.docker.io/v1/": {"auth": "Og"}}`)
	f.Fuzz(func(t *testing.T, legacy bool, content string) {
		entries, err := authEntries(legacy, []byte(content))
		if err != nil && entries != nil {
			t.Errorf("there are entries with the error %v", err)
		}
		var r ring
		if r.add(entries) == nil && len(entries) > 0 && len(r.keys) == 0 {
			t.Error("the entries were lost")
		}
	})
}
