package serviceenv

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// parse reads YAML or JSON documents of the kinds Service, ServiceList and List,
// as "kubectl get services --output yaml" prints them. What it returns can be made
// variables of. A file without any document is a mistake, since that is what a
// write leaves that was cut off early; an empty list is none.
func parse(data []byte) ([]*corev1.Service, error) {
	codecs, err := newCodecs()
	if err != nil {
		return nil, err
	}
	p := parser{decoder: codecs.UniversalDeserializer(), known: map[string]bool{}}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	found := false
	for {
		var document runtime.RawExtension
		err := documents.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if raw := bytes.TrimSpace(document.Raw); len(raw) == 0 || string(raw) == "null" {
			continue // Between two separators stood nothing, or a comment.
		}
		found = true
		if err := p.document(document.Raw); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errors.New("it holds no Service; to say that there are none, write an empty v1 List")
	}
	return p.services, nil
}

// parser collects the Services of one file.
type parser struct {
	decoder  runtime.Decoder
	services []*corev1.Service
	known    map[string]bool // By namespace and name.
}

func (p *parser) document(raw []byte) error {
	object, _, err := p.decoder.Decode(raw, nil, nil)
	if err != nil {
		return err
	}
	switch o := object.(type) {
	case *corev1.Service:
		return p.add(o)
	case *corev1.ServiceList:
		for i := range o.Items {
			if err := p.add(&o.Items[i]); err != nil {
				return err
			}
		}
		return nil
	case *corev1.List:
		return p.items(o.Items)
	default:
		return fmt.Errorf("it holds a %s, it may hold only Services and lists of them", object.GetObjectKind().GroupVersionKind().Kind)
	}
}

// items reads those of a List, in which no further list may be.
func (p *parser) items(items []runtime.RawExtension) error {
	for i, item := range items {
		object, _, err := p.decoder.Decode(item.Raw, nil, nil)
		if err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
		service, ok := object.(*corev1.Service)
		if !ok {
			return fmt.Errorf("items[%d] is a %s, it must be a Service", i, object.GetObjectKind().GroupVersionKind().Kind)
		}
		if err := p.add(service); err != nil {
			return err
		}
	}
	return nil
}

// add takes a Service; without a namespace it is in "default", as for kubectl.
func (p *parser) add(s *corev1.Service) error {
	s.Namespace = cmp.Or(s.Namespace, metav1.NamespaceDefault)
	key := s.Namespace + "/" + s.Name
	if err := check(s); err != nil {
		return fmt.Errorf("Service %q: %w", key, err) //nolint:staticcheck // It is the kind's name.
	}
	if p.known[key] {
		return fmt.Errorf("Service %q is there twice", key) //nolint:staticcheck // It is the kind's name.
	}
	p.known[key] = true
	p.services = append(p.services, trimmed(s))
	return nil
}

// check holds against a Service what the API server would: it may be half of one,
// and its names become those of variables.
func check(s *corev1.Service) error {
	if problems := append(validation.IsDNS1123Label(s.Name), validation.IsDNS1123Label(s.Namespace)...); len(problems) > 0 {
		return fmt.Errorf("its name or namespace is wrong: %s", problems[0])
	}
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	if ip, err := netip.ParseAddr(s.Spec.ClusterIP); err != nil || ip.Zone() != "" {
		return fmt.Errorf("clusterIP is %q, it must be an address, \"None\" or \"\"", s.Spec.ClusterIP)
	}
	if len(s.Spec.Ports) == 0 {
		return errors.New("it has no ports")
	}
	for i, port := range s.Spec.Ports {
		if err := checkPort(port); err != nil {
			return fmt.Errorf("ports[%d]: %w", i, err)
		}
	}
	return nil
}

func checkPort(p corev1.ServicePort) error {
	if problems := validation.IsDNS1123Label(p.Name); p.Name != "" && len(problems) > 0 {
		return fmt.Errorf("its name is wrong: %s", problems[0])
	}
	if problems := validation.IsValidPortNum(int(p.Port)); len(problems) > 0 {
		return fmt.Errorf("port is %d, it %s", p.Port, strings.TrimSpace(problems[0]))
	}
	switch p.Protocol {
	case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return nil
	default:
		return fmt.Errorf("protocol is %q, it must be TCP, UDP or SCTP", p.Protocol)
	}
}
