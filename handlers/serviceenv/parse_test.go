package serviceenv

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// list is a file of Services, as kubectl prints it.
func list(services ...*corev1.Service) string {
	var b strings.Builder
	b.WriteString(`{"apiVersion": "v1", "kind": "List", "items": [`)
	for i, s := range services {
		if i > 0 {
			b.WriteString(",\n")
		}
		text, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		b.Write(text)
	}
	b.WriteString("]}\n")
	return b.String()
}

const (
	webYAML = `apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {a: b}
  managedFields: [{manager: kubectl, operation: Apply}]
spec:
  clusterIP: 10.1.0.1
  clusterIPs: [10.1.0.1, "2001:db8::1"]
  ofTheFuture: 1
  ports:
  - {name: http, port: 80, targetPort: app, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
`
	dbYAML = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, ports: [{port: 5432}]}\n"
)

func TestParse(t *testing.T) {
	t.Parallel()
	web := service("shop", "web", "10.1.0.1")
	web.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "dns", Port: 53, Protocol: "UDP"}}
	web.TypeMeta = corev1.Service{}.TypeMeta
	db := trimmed(service("default", "db", "None"))
	a, b := trimmed(service("x", "a", "10.0.0.1", 1)), trimmed(service("x", "b", "10.0.0.2", 2))
	indented := strings.ReplaceAll(strings.TrimSpace(webYAML), "\n", "\n  ")
	for name, tt := range map[string]struct {
		in   string
		want []*corev1.Service
	}{
		"one":                     {webYAML, []*corev1.Service{web}},
		"several documents":       {"# a comment\n---\n" + webYAML + "---\n---\n" + dbYAML + "...\n", []*corev1.Service{web, db}},
		"a list":                  {"apiVersion: v1\nkind: List\nitems:\n- " + indented + "\n", []*corev1.Service{web}},
		"a list of Services":      {"apiVersion: v1\nkind: ServiceList\nitems:\n- " + strings.Replace(indented, "apiVersion: v1\n  kind: Service\n  ", "", 1) + "\n", []*corev1.Service{web}},
		"JSON":                    {list(service("x", "a", "10.0.0.1", 1), service("x", "b", "10.0.0.2", 2)), []*corev1.Service{a, b}},
		"JSON, one after another": {list(service("x", "a", "10.0.0.1", 1)) + list(service("x", "b", "10.0.0.2", 2)), []*corev1.Service{a, b}},
		"an empty list":           {list(), nil},
		"CRLF":                    {strings.ReplaceAll(webYAML, "\n", "\r\n"), []*corev1.Service{web}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parse([]byte(tt.in))
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":             {"", "holds no Service"},
		"comments":            {"# nothing\n---\n", "holds no Service"},
		"another kind":        {"apiVersion: v1\nkind: Pod\n", "a Pod"},
		"an unknown kind":     {"apiVersion: v1\nkind: Sevrice\n", "Sevrice"},
		"another version":     {"apiVersion: v2\nkind: Service\n", "v2"},
		"no kind":             {"metadata: {name: web}\n", "Kind"},
		"another kind inside": {`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]}`, "items[0] is a Pod"},
		"a list inside":       {`{"apiVersion":"v1","kind":"List","items":[` + list() + `]}`, "items[0] is a List"},
		"no name":             {strings.Replace(webYAML, "  name: web\n", "", 1), "its name or namespace is wrong"},
		"a name for a shell":  {strings.Replace(webYAML, "name: web", "name: 'a=b'", 1), "its name or namespace is wrong"},
		"no address":          {strings.Replace(webYAML, "10.1.0.1\n", "10.1.0\n", 1), `Service "shop/web": clusterIP is "10.1.0"`},
		"a zone":              {strings.Replace(webYAML, "clusterIP: 10.1.0.1\n", "clusterIP: 'fe80::1%eth0'\n", 1), "clusterIP"},
		"no ports":            {webYAML[:strings.Index(webYAML, "  ports")], "it has no ports"},
		"port 0":              {strings.Replace(webYAML, "port: 80", "port: 0", 1), "ports[0]: port is 0"},
		"a port's name":       {strings.Replace(webYAML, "name: dns", "name: 'D S'", 1), "ports[1]: its name is wrong"},
		"a protocol":          {strings.Replace(webYAML, "UDP", "udp", 1), `ports[1]: protocol is "udp"`},
		"twice":               {webYAML + "---\n" + webYAML, `Service "shop/web" is there twice`},
		"a wrong type":        {strings.Replace(webYAML, "port: 80", "port: eighty", 1), "port"},
		"no YAML":             {"{\x00", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parse([]byte(tt.in))
			if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

// FuzzParse: whatever is taken can be made variables of, whose names and values
// hold nothing that an environment cannot.
func FuzzParse(f *testing.F) {
	f.Add([]byte(webYAML + "---\n" + dbYAML))
	f.Add([]byte(list(service("x", "a", "10.0.0.1", 1), service("x", "b", "::1", 2))))
	f.Add([]byte("apiVersion: v1\nkind: ServiceList\nitems: []\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		services, err := parse(data)
		if err != nil {
			if services != nil {
				t.Error("there are Services besides an error")
			}
			return
		}
		for _, s := range services {
			if !hasAddress(s) {
				continue
			}
			for _, v := range variablesOf(s) {
				if v.Name == "" || strings.ContainsAny(v.Name, "=\x00 \n") || v.Value == "" || strings.ContainsAny(v.Value, "\x00\n ") {
					t.Errorf("%q = %q", v.Name, v.Value)
				}
			}
		}
	})
}
