package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// TestPasswordDoesNotShow prints a credential and whatever holds one in every
// way there is but %p, which asks no method; vet refuses it for a struct.
func TestPasswordDoesNotShow(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	hidden := func(how, text string) {
		t.Helper()
		for _, form := range []string{password, fmt.Sprintf("%x", password), fmt.Sprintf("%X", password), fmt.Sprintf("% x", password), fmt.Sprintf("%d", []byte(password)), authOf("user:" + password)} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows the password: %s", how, text)
			}
		}
	}
	path := writeFile(t, "config.json", `{"auths": {"quay.io": {"auth": "`+authOf("user:"+password)+`"}}}`)
	answer := strings.Replace(answerOf(`"cacheKeyType": "Image"`, "quay.io"), "secret", password, 1)
	r := newRig(t, lifted(), provider{mode: "answer", argument: answer}, provider{mode: "answer", argument: answer + answer})
	var out logs
	o := Options{AuthFiles: []string{path}, Log: out.entry()}
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	k.providers = r.providers
	found, err := k.Lookup(t.Context(), "quay.io/a")
	if err != nil || len(found) != 2 || found[0].Password != password || found[1].Password != password {
		t.Fatalf("found %d, %v, want two with the password", len(found), err)
	}
	c := found[0]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%T", "%c", "%U", "%e", "%b", "%o", "%10.3s"} {
		for _, value := range []any{c, &c, found, map[string]Credential{"a": c}, struct{ C Credential }{c}, k, *k, o} {
			hidden(fmt.Sprintf("%s of %T", verb, value), fmt.Sprintf(verb, value))
		}
	}
	hidden("String", c.String())
	hidden("GoString", c.GoString())
	for _, value := range []any{c, &c, found, map[string]Credential{"a": c}, struct{ C Credential }{c}, k} {
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		hidden(fmt.Sprintf("JSON of %T", value), string(encoded))
	}
	hidden("an error", errors.Join(fmt.Errorf("%v", c), fmt.Errorf("%+v", found)).Error())
	for _, formatter := range []logrus.Formatter{&logrus.TextFormatter{}, &logrus.JSONFormatter{}} {
		log := out.entry()
		log.Logger.SetFormatter(formatter)
		log.WithField("credential", c).WithField("all", found).WithField("pointer", &c).Debug(c)
	}
	hidden("the log", out.String())
	hidden("the plugins' log", r.logs.String())
	if !strings.Contains(out.String(), path) || !strings.Contains(r.logs.String(), "credential provider failed") {
		t.Errorf("the logs are not what was to be looked at:\n%s%s", &out, &r.logs)
	}
}
