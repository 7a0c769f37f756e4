package hooks

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/json"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// The annotations on a pod that concern hooks.
const (
	// Annotation holds hooks of the pod's own: JSON of the form
	// {"<container>": {"postStart": [LifecycleHandler…], "preStop": […]}}.
	Annotation = "cri-proxy.io/hooks"
	// OptOutAnnotation is "true" on a pod that refuses the node's hooks.
	OptOutAnnotation = "cri-proxy.io/hooks-disabled"
)

// What the kubelet tells about a container in its annotations.
const (
	portsAnnotation   = "io.kubernetes.container.ports"
	preStopAnnotation = "io.kubernetes.container.preStopHandler"
	graceAnnotation   = "io.kubernetes.pod.terminationGracePeriod"
)

const (
	// maxAnnotation bounds it in bytes. Kubernetes' own bound, for all annotations of
	// a pod, is 256 KiB, but not every pod has come by an API server.
	maxAnnotation = 64 << 10
	// maxPodHooks bounds what one container can make this program write to disk.
	maxPodHooks = 16
	// podTimeout bounds a PostStart of a pod, for which Kubernetes' form has no time-out.
	podTimeout = time.Minute
)

// containerHooks are the hooks that a pod brings for one of its containers.
type containerHooks struct {
	PostStart []corev1.LifecycleHandler `json:"postStart,omitempty"`
	PreStop   []corev1.LifecycleHandler `json:"preStop,omitempty"`
}

// podHooks reads [Annotation]. The error says what is wrong in which container,
// without the name of the annotation.
func podHooks(text string) (map[string]containerHooks, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // No hooks at all is what an empty text says.
	}
	if len(text) > maxAnnotation {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxAnnotation)
	}
	var all map[string]containerHooks
	strict, err := json.UnmarshalStrict([]byte(text), &all)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("it is not the JSON that it should be: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) { // One mistake is reported, always the same.
		hooks := all[name]
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return nil, fmt.Errorf("%q is not the name of a container: %s", name, problems[0])
		}
		if err := errors.Join(checkList("postStart", hooks.PostStart), checkList("preStop", hooks.PreStop)); err != nil {
			return nil, fmt.Errorf("container %q: %w", name, err)
		}
	}
	return all, nil
}

func checkList(event string, list []corev1.LifecycleHandler) error {
	if len(list) > maxPodHooks {
		return fmt.Errorf("%s has %d hooks, at most %d are allowed", event, len(list), maxPodHooks)
	}
	for i, h := range list {
		if err := checkHandler(h); err != nil {
			return fmt.Errorf("%s[%d]: %w", event, i, err)
		}
	}
	return nil
}

// checkHandler checks all but a port's name, for which the container must be known.
func checkHandler(h corev1.LifecycleHandler) error {
	actions := 0
	for _, set := range []bool{h.Exec != nil, h.HTTPGet != nil, h.Sleep != nil} {
		if set {
			actions++
		}
	}
	switch {
	case h.TCPSocket != nil:
		return errors.New("tcpSocket is not supported, use exec, httpGet or sleep")
	case actions != 1:
		return errors.New("it must have exactly one of exec, httpGet and sleep")
	case h.Exec != nil && (len(h.Exec.Command) == 0 || h.Exec.Command[0] == ""):
		return errors.New("exec.command is empty, it must be the program and its arguments")
	case h.Sleep != nil && (h.Sleep.Seconds < 1 || h.Sleep.Seconds > 24*60*60):
		return fmt.Errorf("sleep.seconds is %d, it must be from 1 to 86400", h.Sleep.Seconds)
	case h.HTTPGet != nil:
		return checkHTTPGet(*h.HTTPGet)
	}
	return nil
}

func checkHTTPGet(g corev1.HTTPGetAction) error {
	scheme := strings.ToLower(string(g.Scheme))
	switch {
	case g.Host != "":
		return errors.New("httpGet.host must be left out: a hook of a pod goes to the pod itself")
	case scheme != "" && scheme != "http" && scheme != "https":
		return fmt.Errorf("httpGet.scheme is %q, it must be HTTP or HTTPS", g.Scheme)
	case g.Protocol != nil:
		return errors.New("httpGet.protocol is not supported, hooks use HTTP/1.1")
	case g.Port.Type == intstr.Int && len(validation.IsValidPortNum(g.Port.IntValue())) > 0:
		return fmt.Errorf("httpGet.port is %d, it must be from 1 to 65535 or a port's name", g.Port.IntValue())
	case strings.ContainsFunc(g.Path, isControl):
		return errors.New("httpGet.path holds control characters")
	}
	for _, h := range g.HTTPHeaders {
		if problems := validation.IsHTTPHeaderName(h.Name); len(problems) > 0 {
			return fmt.Errorf("httpGet.httpHeaders: %q is not a header's name: %s", h.Name, problems[0])
		}
		if strings.HasPrefix(http.CanonicalHeaderKey(h.Name), headerPrefix) {
			return fmt.Errorf("httpGet.httpHeaders: %q is one of those that cri-proxy sets itself", h.Name)
		}
		if strings.ContainsFunc(h.Value, isControl) {
			return fmt.Errorf("httpGet.httpHeaders: the value of %q holds control characters", h.Name)
		}
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// fromHandler makes a hook of a LifecycleHandler that checkHandler let pass.
// ports is the container's annotation about its ports.
func fromHandler(h corev1.LifecycleHandler, ports string) (journal.Hook, error) {
	hook := journal.Hook{Attempts: 1, Backoff: 200 * time.Millisecond}
	switch {
	case h.Exec != nil:
		hook.Exec = h.Exec.Command
	case h.Sleep != nil:
		hook.Sleep = time.Duration(h.Sleep.Seconds) * time.Second
	default:
		port, err := portOf(h.HTTPGet.Port, ports)
		if err != nil {
			return hook, fmt.Errorf("httpGet.port: %w", err)
		}
		hook.HTTPGet = &journal.HTTPGet{Scheme: "http", Port: port, Path: h.HTTPGet.Path}
		if h.HTTPGet.Scheme != "" {
			hook.HTTPGet.Scheme = strings.ToLower(string(h.HTTPGet.Scheme))
		}
		for _, header := range h.HTTPGet.HTTPHeaders {
			hook.HTTPGet.Headers = append(hook.HTTPGet.Headers, journal.Header{Name: header.Name, Value: header.Value})
		}
	}
	return hook, nil
}

// portOf resolves a port's name as the kubelet does: by the container's own ports.
func portOf(port intstr.IntOrString, ports string) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	var known []corev1.ContainerPort
	if ports != "" {
		if err := json.UnmarshalCaseSensitivePreserveInts([]byte(ports), &known); err != nil {
			return 0, fmt.Errorf("the container's annotation %s cannot be read: %w", portsAnnotation, err)
		}
	}
	for _, p := range known {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(port.StrVal); err == nil && len(validation.IsValidPortNum(n)) == 0 {
		return n, nil
	}
	return 0, fmt.Errorf("the container has no port named %q", port.StrVal)
}
