package e2e_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// patience is how long a pod may take on a machine that is busy.
const patience = 3 * time.Minute

// space is a namespace of a test's own.
type space struct {
	*cluster

	name string
}

// newSpace makes a namespace, which goes with all that is in it after the test.
func newSpace(ctx context.Context, t *testing.T, c *cluster) *space {
	t.Helper()
	name := strings.NewReplacer("/", "-", "testcluster-", "").Replace(strings.ToLower(t.Name()))
	s := &space{cluster: c, name: name[:min(len(name), 63)]}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	if _, err := c.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wait(ctx, t, func() error { return c.HasServiceAccount(ctx, s.name) })
	t.Cleanup(func() { s.remove(context.WithoutCancel(ctx), t) })
	return s
}

// remove shows what was in the namespace if the test failed. The next tests do
// not wait for its end, but its pods have only a second.
func (s *space) remove(ctx context.Context, t *testing.T) {
	t.Helper()
	if t.Failed() {
		s.diagnose(ctx, t)
	}
	one := int64(1)
	pods := s.Client.CoreV1().Pods(s.name)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &one}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if err := s.Client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// diagnose shows pods and events to the reader of a failure.
func (s *space) diagnose(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, arguments := range [][]string{{"get", "pods", "-o", "wide"}, {"describe", "pods"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		output, err := s.kubectl(ctx, arguments...)
		t.Logf("kubectl %v (%v):\n%s", arguments, err, output)
	}
	t.Log(s.Cluster.Kubelet.Log())
}

// kubectl runs a command in the namespace.
func (s *space) kubectl(ctx context.Context, arguments ...string) (string, error) {
	return s.RunKubectl(ctx, strings.NewReader(""), append([]string{"--namespace", s.name}, arguments...)...)
}

func (s *space) mustKubectl(ctx context.Context, t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := s.kubectl(ctx, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// start is a kubectl that runs until the test ends it, and what it printed.
func (s *space) start(ctx context.Context, t *testing.T, input io.Reader, arguments ...string) *output {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	cmd := s.Kubectl(ctx, append([]string{"--namespace", s.name}, arguments...)...)
	printed := &output{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, printed, printed
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	return printed
}

// image pushes an image of the test's own and returns its name.
func (s *space) image(ctx context.Context, t *testing.T, image rig.Image) string {
	t.Helper()
	name := "example.test/" + s.name + ":v1"
	if _, err := s.Push(ctx, name, image); err != nil {
		t.Fatal(err)
	}
	return name
}

// pod is one with one container, "app", that serves HTTP.
func (s *space) pod(name, handler, image string) *corev1.Pod {
	none := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RuntimeClassName: &handler, TerminationGracePeriodSeconds: &none,
			Containers: []corev1.Container{{Name: "app", Image: image}},
		},
	}
}

func (s *space) create(ctx context.Context, t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		if _, err := s.Client.CoreV1().Pods(s.name).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// get asks for a pod as it is now.
func (s *space) get(ctx context.Context, t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := s.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// ready waits until pods are, and returns the last one.
func (s *space) ready(ctx context.Context, t *testing.T, names ...string) (pod *corev1.Pod) {
	t.Helper()
	for _, name := range names {
		pod = s.until(ctx, t, name, isReady)
	}
	return pod
}

func isReady(pod *corev1.Pod) error {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
			return nil
		}
	}
	return fmt.Errorf("pod %s is %s and not ready", pod.Name, pod.Status.Phase)
}

// until waits for a pod that passes the check.
func (s *space) until(ctx context.Context, t *testing.T, name string, check func(*corev1.Pod) error) (pod *corev1.Pod) {
	t.Helper()
	s.wait(ctx, t, func() (err error) {
		if pod, err = s.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		return check(pod)
	})
	return pod
}

// gone waits until a pod is no more in the API server.
func (s *space) gone(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	s.wait(ctx, t, func() error {
		_, err := s.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{})
		if errors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod %s is still there (%w)", name, err)
	})
}

// event waits for one of a pod whose message has all the parts.
func (s *space) event(ctx context.Context, t *testing.T, pod, reason string, parts ...string) {
	t.Helper()
	s.wait(ctx, t, func() error {
		list, err := s.Client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod + ",reason=" + reason})
		if err != nil {
			return err
		}
		for _, event := range list.Items {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(event.Message, part) }) {
				return nil
			}
		}
		return fmt.Errorf("no event %s of pod %s has %q", reason, pod, parts)
	})
}

// noEvent fails if there was one.
func (s *space) noEvent(ctx context.Context, t *testing.T, part string) {
	t.Helper()
	list, err := s.Client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range list.Items {
		if strings.Contains(event.Reason+" "+event.Message, part) {
			t.Errorf("there was an event with %q: %s %s: %s", part, event.InvolvedObject.Name, event.Reason, event.Message)
		}
	}
}

// wait polls until the check succeeds, for as long as patience lasts.
func (s *space) wait(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	s.waitWithin(ctx, t, patience, check)
}

func (*space) waitWithin(ctx context.Context, t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := rig.Poll(ctx, check); err != nil {
		t.Fatal(err)
	}
}

func wantContains(t *testing.T, text string, parts ...string) {
	t.Helper()
	if err := contains(text, parts...); err != nil {
		t.Error(err)
	}
}

func contains(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return fmt.Errorf("%q is not in:\n%s", part, text)
		}
	}
	return nil
}

// wantHandler asks a container of a pod for the variable that the handler of
// that name sets.
func (s *space) wantHandler(ctx context.Context, t *testing.T, pod, handler string) {
	t.Helper()
	got := ""
	for line := range strings.Lines(s.mustKubectl(ctx, t, "exec", pod, "--", "/bin/env")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "RIG_HANDLER="); ok {
			got = value
		}
	}
	if got != mark(handler) {
		t.Errorf("RIG_HANDLER is %q in a pod of %s, want %q", got, handler, mark(handler))
	}
}
