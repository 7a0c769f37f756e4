package serviceenv

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Variable is one environment variable.
type Variable struct{ Name, Value string }

// masterService is the Service that every pod gets, whatever its namespace.
const masterService = "kubernetes"

// selected returns the Services whose variables a pod gets. Of Services with one
// name only the first counts: those of the pod's own namespace come first, the
// API server's second, then those of further namespaces. Among those of a namespace
// the order is that of their names. The kubelet's is random, which makes no
// difference but where a variable of one Service has the name of another's.
func selected(namespace string, further []string, in lookUp) []*corev1.Service {
	var all []*corev1.Service
	taken := map[string]bool{}
	take := func(services []*corev1.Service) {
		for _, s := range slices.SortedFunc(slices.Values(services), byName) {
			if hasAddress(s) && !taken[s.Name] {
				taken[s.Name] = true
				all = append(all, s)
			}
		}
	}
	take(in(namespace))
	take(slices.DeleteFunc(slices.Clone(in(metav1.NamespaceDefault)), func(s *corev1.Service) bool { return s.Name != masterService }))
	for _, n := range further {
		take(in(n))
	}
	return all
}

func byName(a, b *corev1.Service) int { return cmp.Compare(a.Name, b.Name) }

// hasAddress reports whether a Service has variables: not when it is headless or
// only another name. One without ports cannot be, but the kubelet's variables
// could not be made of it.
func hasAddress(s *corev1.Service) bool {
	return s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone && len(s.Spec.Ports) > 0
}

// variablesOf returns the variables of a Service that has an address: those of
// Kubernetes, then those of Docker's links, in the kubelet's order.
func variablesOf(s *corev1.Service) []Variable {
	prefix, address := nameOf(s.Name), s.Spec.ClusterIP
	all := []Variable{
		{prefix + "_SERVICE_HOST", address},
		{prefix + "_SERVICE_PORT", number(s.Spec.Ports[0])},
	}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			all = append(all, Variable{prefix + "_SERVICE_PORT_" + nameOf(p.Name), number(p)})
		}
	}
	for i, p := range s.Spec.Ports {
		protocol := cmp.Or(string(p.Protocol), string(corev1.ProtocolTCP))
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(address, number(p))
		if i == 0 {
			all = append(all, Variable{prefix + "_PORT", url})
		}
		port := prefix + "_PORT_" + number(p) + "_" + strings.ToUpper(protocol)
		all = append(all, []Variable{
			{port, url}, {port + "_PROTO", strings.ToLower(protocol)}, {port + "_PORT", number(p)}, {port + "_ADDR", address},
		}...)
	}
	return all
}

func number(p corev1.ServicePort) string { return strconv.Itoa(int(p.Port)) }

// nameOf changes nothing else: a dot and a digit at the front stay, as in the
// kubelet.
func nameOf(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// trimmed returns a Service with nothing but what its variables need.
func trimmed(s *corev1.Service) *corev1.Service {
	small := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace}}
	if !hasAddress(s) {
		return small
	}
	small.Spec.ClusterIP = s.Spec.ClusterIP
	small.Spec.Ports = make([]corev1.ServicePort, 0, len(s.Spec.Ports))
	for _, p := range s.Spec.Ports {
		small.Spec.Ports = append(small.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return small
}
