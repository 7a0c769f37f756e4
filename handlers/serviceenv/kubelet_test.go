package serviceenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The first three functions are the kubelet's, from Kubernetes' pkg/kubelet/envvars
// and pkg/kubelet/kubelet_pods.go (Copyright The Kubernetes Authors, Apache-2.0),
// with other names and without what reads the lister: the variables must be these.

func kubeletSelection(services []*corev1.Service, ns string, enableServiceLinks bool) []*corev1.Service {
	serviceMap := make(map[string]*corev1.Service)
	for i := range services {
		service := services[i]
		if service.Spec.ClusterIP == corev1.ClusterIPNone || service.Spec.ClusterIP == "" {
			continue
		}
		serviceName := service.Name
		if service.Namespace == metav1.NamespaceDefault && serviceName == "kubernetes" {
			if _, exists := serviceMap[serviceName]; !exists {
				serviceMap[serviceName] = service
			}
		} else if service.Namespace == ns && enableServiceLinks {
			serviceMap[serviceName] = service
		}
	}
	mappedServices := []*corev1.Service{}
	for key := range serviceMap {
		mappedServices = append(mappedServices, serviceMap[key])
	}
	return mappedServices
}

func kubeletFromServices(services []*corev1.Service) []corev1.EnvVar {
	upper := func(str string) string { return strings.ToUpper(strings.ReplaceAll(str, "-", "_")) }
	var result []corev1.EnvVar
	for i := range services {
		service := services[i]
		name := upper(service.Name) + "_SERVICE_HOST"
		result = append(result, corev1.EnvVar{Name: name, Value: service.Spec.ClusterIP})
		name = upper(service.Name) + "_SERVICE_PORT"
		result = append(result, corev1.EnvVar{Name: name, Value: strconv.Itoa(int(service.Spec.Ports[0].Port))})
		for i := range service.Spec.Ports {
			sp := &service.Spec.Ports[i]
			if sp.Name != "" {
				pn := name + "_" + upper(sp.Name)
				result = append(result, corev1.EnvVar{Name: pn, Value: strconv.Itoa(int(sp.Port))})
			}
		}
		result = append(result, kubeletLinkVariables(service, upper(service.Name))...)
	}
	return result
}

func kubeletLinkVariables(service *corev1.Service, prefix string) []corev1.EnvVar {
	all := []corev1.EnvVar{}
	for i := range service.Spec.Ports {
		sp := &service.Spec.Ports[i]
		protocol := string(corev1.ProtocolTCP)
		if sp.Protocol != "" {
			protocol = string(sp.Protocol)
		}
		hostPort := net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(sp.Port)))
		if i == 0 {
			all = append(all, corev1.EnvVar{Name: prefix + "_PORT", Value: fmt.Sprintf("%s://%s", strings.ToLower(protocol), hostPort)})
		}
		portPrefix := fmt.Sprintf("%s_PORT_%d_%s", prefix, sp.Port, strings.ToUpper(protocol))
		all = append(all, []corev1.EnvVar{
			{Name: portPrefix, Value: fmt.Sprintf("%s://%s", strings.ToLower(protocol), hostPort)},
			{Name: portPrefix + "_PROTO", Value: strings.ToLower(protocol)},
			{Name: portPrefix + "_PORT", Value: strconv.Itoa(int(sp.Port))},
			{Name: portPrefix + "_ADDR", Value: service.Spec.ClusterIP},
		}...)
	}
	return all
}

// randomServices are of three namespaces, with few names, so that they meet.
func randomServices(r *rand.Rand) []*corev1.Service {
	oneOf := func(all ...string) string { return all[r.IntN(len(all))] }
	var services []*corev1.Service
	known := map[string]bool{}
	for range r.IntN(12) {
		s := service(oneOf("default", "shop", "other"), oneOf("kubernetes", "db", "a-b", "a.b", "1st", "foo", "x"), oneOf("10.0.0.1", "None", "", "2001:db8::1"))
		if known[s.Namespace+"/"+s.Name] {
			continue
		}
		known[s.Namespace+"/"+s.Name] = true
		for i := range 1 + r.IntN(3) {
			p := corev1.ServicePort{Port: int32(80 + r.IntN(2)), Protocol: corev1.Protocol(oneOf("", "TCP", "UDP", "SCTP")), NodePort: 30080}
			if i > 0 || r.IntN(2) == 0 {
				p.Name = "p-" + strconv.Itoa(i)
			}
			s.Spec.Ports = append(s.Spec.Ports, p)
		}
		services = append(services, s)
	}
	return services
}

// TestLikeKubelet compares with the kubelet's code on random Services, and checks
// that what a source keeps of them, in whatever order, is enough.
func TestLikeKubelet(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // Repeatable on purpose.
	total := 0
	for range 3000 {
		services := randomServices(r)
		for _, namespace := range []string{"default", "shop", "empty"} {
			want := map[string]string{}
			for _, v := range kubeletFromServices(kubeletSelection(services, namespace, true)) {
				want[v.Name] = v.Value
			}
			kept := make([]*corev1.Service, 0, len(services))
			for _, s := range services {
				kept = append(kept, trimmed(s))
			}
			r.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
			got := map[string]string{}
			for _, s := range selected(namespace, nil, held(kept...)) {
				for _, v := range variablesOf(s) {
					got[v.Name] = v.Value
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("namespace %s, -kubelet +cri-proxy:\n%s", namespace, diff)
			}
			total += len(got)
		}
	}
	if total < 10000 {
		t.Errorf("only %d variables were compared", total)
	}
}

// TestOrderLikeKubelet: the variables of one Service come in the kubelet's order.
func TestOrderLikeKubelet(t *testing.T) {
	t.Parallel()
	s := service("shop", "web-ui", "2001:db8::1")
	s.Spec.Ports = []corev1.ServicePort{{Name: "h-1", Port: 80}, {Name: "dns", Port: 53, Protocol: "UDP"}, {Name: "dns-tcp", Port: 53, Protocol: "TCP"}}
	var want []Variable
	for _, v := range kubeletFromServices([]*corev1.Service{s}) {
		want = append(want, Variable{v.Name, v.Value})
	}
	if diff := cmp.Diff(want, variablesOf(s)); diff != "" {
		t.Errorf("-kubelet +cri-proxy:\n%s", diff)
	}
	for _, v := range []Variable{
		{"WEB_UI_SERVICE_HOST", "2001:db8::1"},
		{"WEB_UI_SERVICE_PORT_H_1", "80"},
		{"WEB_UI_PORT", "tcp://[2001:db8::1]:80"},
		{"WEB_UI_PORT_53_UDP", "udp://[2001:db8::1]:53"},
		{"WEB_UI_PORT_53_TCP_ADDR", "2001:db8::1"},
	} {
		if !slices.Contains(want, v) {
			t.Errorf("%v is missing", v)
		}
	}
}
