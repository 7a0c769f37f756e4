package rawcri

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The full names of the two CRI services.
const (
	RuntimeService = "runtime.v1.RuntimeService"
	ImageService   = "runtime.v1.ImageService"
)

// IDKind says what the string field 1 of a method's request names.
type IDKind int

// The kinds of id that CRI requests carry in field 1.
const (
	NoID IDKind = iota
	SandboxID
	ContainerID
)

// Method is what is known of one RPC. Of a method that the linked cri-api
// does not have, only the names are known.
type Method struct {
	FullName      string // As gRPC writes it: /runtime.v1.RuntimeService/StopContainer.
	Service       string // runtime.v1.RuntimeService.
	Name          string // StopContainer.
	Known         bool   // Whether the linked cri-api has it.
	ServerStreams bool   // Whether more than one message may come back.
	Endless       bool   // Whether the answer ends only with the caller or the upstream.
	ID            IDKind // What field 1 of the request names.
	Answer        *Plan  // Where the answer carries handler names; nil: nowhere.
}

// Catalog holds the methods of the linked cri-api. It is immutable.
type Catalog struct {
	methods map[string]Method
}

// NewCatalog reads the CRI descriptors.
func NewCatalog() *Catalog {
	c := &Catalog{methods: map[string]Method{}}
	// By way of a message: the name of the file's own variable differs from release to release.
	services := (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := describe(methods.Get(j))
			c.methods[m.FullName] = m
		}
	}
	return c
}

func describe(d protoreflect.MethodDescriptor) Method {
	m := split("/" + string(d.Parent().FullName()) + "/" + string(d.Name()))
	m.Known = true
	m.ServerStreams = d.IsStreamingServer()
	m.Endless = m.Name == "GetContainerEvents"
	m.Answer = NewPlan(d.Output())
	if first := d.Input().Fields().ByNumber(1); first != nil && first.Kind() == protoreflect.StringKind {
		switch first.Name() {
		case "pod_sandbox_id":
			m.ID = SandboxID
		case "container_id":
			m.ID = ContainerID
		}
	}
	return m
}

// Lookup returns the method of that full name, known or not.
func (c *Catalog) Lookup(fullName string) Method {
	if m, ok := c.methods[fullName]; ok {
		return m
	}
	return split(fullName)
}

// All returns the known methods, in no order.
func (c *Catalog) All() []Method {
	all := make([]Method, 0, len(c.methods))
	for _, m := range c.methods {
		all = append(all, m)
	}
	return all
}

func split(fullName string) Method {
	service, name, _ := strings.Cut(strings.TrimPrefix(fullName, "/"), "/")
	return Method{FullName: fullName, Service: service, Name: name}
}
