package main

import (
	"fmt"
	"strings"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// The handlers. "runc" is every containerd's own; "isolated" is made by the rig
// and is the same runc with one variable more in every container.
const (
	plain    = "runc"
	isolated = "isolated"
	renamed  = "renamed" // the proxy's name for isolated
)

// yardstick is a handler of a containerd that critest runs on directly.
type yardstick struct {
	old     bool // containerd 1.7
	handler string
}

// combination is one way to put the proxy in front of containerds.
type combination struct {
	letter  rune
	what    string
	handler string // that critest names to the proxy
	// direct is the handler and the containerd behind that, without the proxy.
	direct yardstick
	// backends are the containerds behind the proxy, the default one first.
	backends []rig.ContainerdOptions
	config   func(backends []*rig.Containerd) string // of the proxy
}

func combinations() []combination {
	second := rig.ContainerdOptions{Name: "second", Handlers: []string{isolated}, HostPorts: true}
	old := second
	old.Old = true
	first := rig.ContainerdOptions{Name: "first", HostPorts: true}
	return []combination{
		{
			letter: 'a', what: "one containerd 2.4", handler: plain, direct: yardstick{handler: plain},
			backends: []rig.ContainerdOptions{first}, config: single(plain),
		},
		{
			letter: 'b', what: "two containerds 2.4, on the handler of the second", handler: isolated, direct: yardstick{handler: isolated},
			backends: []rig.ContainerdOptions{first, second}, config: both,
		},
		{
			letter: 'c', what: "containerd 2.4 and containerd 1.7, on the handler of the second", handler: isolated, direct: yardstick{handler: isolated, old: true},
			backends: []rig.ContainerdOptions{first, old}, config: both,
		},
		{
			letter: 'd', what: "one containerd 2.4, on a handler that the proxy calls by another name", handler: renamed, direct: yardstick{handler: isolated},
			backends: []rig.ContainerdOptions{second}, config: single(plain, renamed),
		},
	}
}

// both gives each of two containerds its handler.
func both(backends []*rig.Containerd) string {
	return rig.TwoHandlers(backends[0], backends[1], isolated)
}

// single is the configuration of one containerd with all the handlers.
func single(handlers ...string) func([]*rig.Containerd) string {
	return func(backends []*rig.Containerd) string {
		backend := backends[0]
		var config strings.Builder
		fmt.Fprintf(&config, "[backends.%s]\nendpoint = %q\n", backend.Name, backend.Endpoint())
		for _, handler := range handlers {
			fmt.Fprintf(&config, "\n[handlers.%s]\nbackend = %q\n", handler, backend.Name)
			if handler == renamed {
				fmt.Fprintf(&config, "runtime = %q\n", isolated)
			}
		}
		return config.String()
	}
}

// letters are those of all combinations.
func letters() string {
	var all strings.Builder
	for _, combination := range combinations() {
		all.WriteRune(combination.letter)
	}
	return all.String()
}

// listing explains the letters.
func listing() string {
	var lines strings.Builder
	for _, combination := range combinations() {
		fmt.Fprintf(&lines, "  %c  %s\n", combination.letter, combination.what)
	}
	return lines.String()
}
