package real_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// containerStatus is the part of `crictl inspect` that the tests read.
type containerStatus struct {
	ID        string
	State     string
	ExitCode  int
	Image     struct{ Image string }
	ImageID   string
	Resources struct {
		Linux struct{ MemoryLimitInBytes string }
	}
}

// podStatus is the part of `crictl inspectp` that the tests read.
type podStatus struct {
	ID             string
	State          string
	RuntimeHandler string
	Network        struct{ IP string }
}

func crictl(t *testing.T, n *node, endpoint string) rig.Crictl {
	t.Helper()
	made, err := n.Crictl(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func run(ctx context.Context, t *testing.T, crictl rig.Crictl, arguments ...string) string {
	t.Helper()
	output, err := crictl.Run(ctx, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func runJSON(ctx context.Context, t *testing.T, crictl rig.Crictl, value any, arguments ...string) {
	t.Helper()
	if err := crictl.JSON(ctx, value, arguments...); err != nil {
		t.Fatal(err)
	}
}

func inspect(ctx context.Context, t *testing.T, crictl rig.Crictl, id string) containerStatus {
	t.Helper()
	var answer struct{ Status containerStatus }
	runJSON(ctx, t, crictl, &answer, "inspect", id)
	return answer.Status
}

func inspectPod(ctx context.Context, t *testing.T, crictl rig.Crictl, id string) podStatus {
	t.Helper()
	var answer struct{ Status podStatus }
	runJSON(ctx, t, crictl, &answer, "inspectp", id)
	return answer.Status
}

// short is an id as a person types it.
func short(id string) string { return id[:13] }

// imageName is an image that no other test has.
func imageName(t *testing.T) string {
	t.Helper()
	return "example.test/" + strings.NewReplacer("/", "-", "#", "-").Replace(strings.ToLower(t.Name())) + ":v1"
}

func contains(text string, wanted ...string) error {
	for _, part := range wanted {
		if !strings.Contains(text, part) {
			return fmt.Errorf("%q is not in:\n%s", part, text)
		}
	}
	return nil
}

func wantContains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	if err := contains(text, wanted...); err != nil {
		t.Error(err)
	}
}

// wantLines compares without regard to the order.
func wantLines(t *testing.T, text string, wanted ...string) {
	t.Helper()
	got := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("got the lines %q, want %q", got, wanted)
	}
}

// wantMark asks for the variable by which a handler's containers are told apart.
func wantMark(t *testing.T, environment, mark string) {
	t.Helper()
	got := ""
	for line := range strings.Lines(environment) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "RIG_HANDLER="); ok {
			got = value
		}
	}
	if got != mark {
		t.Errorf("RIG_HANDLER is %q, want %q: the container runs under another handler", got, mark)
	}
}

// wantCode asks for a gRPC status code as crictl prints it.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "code = "+code+" ") {
		t.Errorf("got %v, want the code %s", err, code)
	}
}

// wantExitCode asks for the exit code of a command in a container, as crictl
// prints it for a command with and without a stream.
func wantExitCode(t *testing.T, err error, code int) {
	t.Helper()
	said := fmt.Sprintf(`exit(ed with| code) %d\b`, code)
	if err == nil || !regexp.MustCompile(said).MatchString(err.Error()) {
		t.Errorf("got %v, want exit code %d", err, code)
	}
}

func errorOr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// waitFor waits until the check succeeds, at most half a minute.
func waitFor(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := rig.Poll(ctx, check); err != nil {
		t.Fatal(err)
	}
}
