package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cri-proxy/cri-proxy/imageservice"
)

// pullSteps is an answer in which the total grows, as the parts of an image
// become known, and nothing is told twice.
func pullSteps() []imageservice.Step {
	steps := []imageservice.Step{
		{Started: &imageservice.Started{Image: "docker.io/library/app:1", Handler: "runc", Backend: "alpha"}},
		{Progress: &imageservice.Progress{}},
		{Progress: &imageservice.Progress{Done: 1500, Total: 1500}},
	}
	for done := int64(1500); done < 50_000_000; done += 700_000 {
		steps = append(steps, imageservice.Step{Progress: &imageservice.Progress{Done: done, Total: 50_000_000}})
	}
	return append(steps, imageservice.Step{Result: &imageservice.Result{ID: "sha256:1", Message: "pulled app"}})
}

func encode(t *testing.T, steps []imageservice.Step) *bytes.Buffer {
	t.Helper()
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	for _, s := range steps {
		if err := encoder.Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	return &body
}

// TestDisplayInLines: where there is no terminal, the same answer gives the same
// few lines.
func TestDisplayInLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := newDisplay(&out)
	if err := errors.Join(follow(encode(t, pullSteps()), d.show), d.close()); err != nil {
		t.Fatal(err)
	}
	const want = `pulling docker.io/library/app:1 for handler runc (backend alpha)
1.5kB of 1.5kB
5.6MB of 50.0MB
10.5MB of 50.0MB
15.4MB of 50.0MB
20.3MB of 50.0MB
25.2MB of 50.0MB
30.1MB of 50.0MB
35.0MB of 50.0MB
40.6MB of 50.0MB
45.5MB of 50.0MB
pulled app
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// TestDisplayOnATerminal: a bar that moves on one line and ends full, without
// colours.
func TestDisplayOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &display{out: &out, terminal: true}
	if err := errors.Join(follow(encode(t, pullSteps()), d.show), d.close()); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "\r") || !strings.Contains(lines[1], "100%") || !strings.Contains(lines[1], "50/50 MB") || lines[2] != "pulled app" {
		t.Errorf("on a terminal:\n%q", text)
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("there are colours or other escapes:\n%q", text)
	}
}

// TestDisplayOfAFailure: the bar stays where it was, and the error has a line of
// its own.
func TestDisplayOfAFailure(t *testing.T) {
	t.Parallel()
	steps := pullSteps()
	steps = append(steps[:10], imageservice.Step{Error: &imageservice.Failure{Code: "NotFound", Message: "no such tag"}})
	var out bytes.Buffer
	d := &display{out: &out, terminal: true}
	err := follow(encode(t, steps), d.show)
	if err == nil || err.Error() != "no such tag (NotFound)" {
		t.Errorf("error %v", err)
	}
	if err := d.close(); err != nil || !strings.HasSuffix(out.String(), "\n") || strings.Contains(out.String(), "100%") {
		t.Errorf("after a failure (%v):\n%q", err, out.String())
	}
}

func TestFollowNeedsAnEnd(t *testing.T) {
	t.Parallel()
	whole := encode(t, pullSteps()).String()
	for name, c := range map[string]struct{ body, want string }{
		"nothing":            {"", "the proxy went away before it was done"},
		"no last line":       {whole[:strings.LastIndex(whole, `{"result"`)], "the proxy went away before it was done"},
		"half of a line":     {whole[:len(whole)-20], "the proxy went away before it was done"},
		"something else":     {"<html>", "read the proxy's answer"},
		"a line of no sense": {"{}\n{\"progress\":7}\n", "read the proxy's answer"},
	} {
		show := func(imageservice.Step) error { return nil }
		if err := follow(strings.NewReader(c.body), show); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzFollow: whatever a proxy answers, the command ends, and well only after a
// result that it has shown.
func FuzzFollow(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"result":{}}`, `{"error":{}}`, `{"error":null,"result":{"message":"x"}}`, `{"progress":{"done":1,"total":-1}}{"result":{}}`,
		`{"progress":{"done":-9223372036854775808,"total":1}}`, `{"progress":{"done":9223372036854775807,"total":9223372036854775807}}{"result":{}}`,
		`{"started":{"image":"\u0000"}}`, "[", "null", `{"progress":{"done":5,"total":7}}{"progress":{"done":1,"total":2}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, terminal := range []bool{false, true} {
			var out bytes.Buffer
			d := &display{out: &out, terminal: terminal}
			results := 0
			err := follow(strings.NewReader(body), func(s imageservice.Step) error {
				if s.Result != nil {
					results++
				}
				return d.show(s)
			})
			if (err == nil) != (results == 1) {
				t.Errorf("terminal %t: %d results, error %v", terminal, results, err)
			}
			if err := d.close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSizeOf(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1.0kB", 4 << 20: "4.2MB", 999_940: "999.9kB", 999_960: "1.0MB", 1 << 62: "4.6EB",
	} {
		if got := sizeOf(bytes); got != want {
			t.Errorf("%d bytes are %q, want %q", bytes, got, want)
		}
	}
}
