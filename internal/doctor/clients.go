package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/cri-proxy/cri-proxy/configs"
)

const crictlFile = "/etc/crictl.yaml"

// checkClients finds who talks to a backend past the proxy.
func (n *node) checkClients(ctx context.Context) {
	n.checkCrictl()
	c := n.about("cri-client", "")
	if n.Sockets == nil {
		c.skip("the connections of a node are seen only on the node itself")
		return
	}
	text, err := n.Sockets(ctx)
	if err != nil {
		c.skip("the connections to the backends cannot be listed: %v", err)
		return
	}
	table := parseSockets(text)
	for _, r := range n.backends {
		n.checkPeers(r, table)
	}
}

// checkPeers judges who is connected to one backend. The kubelet's own statistics
// read /run/containerd/containerd.sock whatever its endpoint is.
func (n *node) checkPeers(r *runtime, table []unixSocket) {
	c := n.about("cri-client", r.name)
	file, err := configs.SocketPath(r.cfg.Endpoint)
	if err != nil {
		return
	}
	var others []string
	unknown := false
	for _, client := range clients(table, file) {
		switch client {
		case "cri-proxy", "kubelet":
		case "":
			unknown = true
		default:
			others = append(others, client)
		}
	}
	slices.Sort(others)
	others = slices.Compact(others)
	switch {
	case len(others) > 0:
		c.warn("let what uses CRI connect to "+n.cfg.Server.Listen+"; what reads containerd's own API sees this runtime's pods only",
			"%s is connected to it past cri-proxy", strings.Join(others, ", "))
	case unknown:
		c.skip("somebody is connected to it whose name only root can see")
	default:
		c.ok("nobody is connected to it but cri-proxy and, for its statistics, the kubelet")
	}
}

func (n *node) checkCrictl() {
	c := n.about("cri-client", "crictl")
	text, err := os.ReadFile(n.path(crictlFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.skip("there is no %s: name the endpoint by --runtime-endpoint %s", crictlFile, n.cfg.Server.Listen)
		return
	case err != nil:
		c.skip("%v", err)
		return
	}
	var settings struct {
		Runtime string `json:"runtime-endpoint"`
		Image   string `json:"image-endpoint"`
	}
	if err := yaml.Unmarshal(text, &settings); err != nil {
		c.warn("correct it", "%s: %v", crictlFile, err)
		return
	}
	for _, endpoint := range []string{settings.Runtime, settings.Image} {
		if endpoint != "" && !same(endpoint, n.cfg.Server.Listen) {
			c.warn("write runtime-endpoint: "+n.cfg.Server.Listen+" there", "%s leads crictl to %s, where it sees one runtime's pods only", crictlFile, endpoint)
			return
		}
	}
	c.ok("%s leads to cri-proxy, or says nothing", crictlFile)
}

// unixSocket is a line of "ss -xpnH".
type unixSocket struct {
	path, inode, peer string
	process           string // "" if it cannot be seen.
}

// parseSockets reads what ss prints: netid, state, two queues, path and inode,
// the peer's path and inode, and its users.
func parseSockets(text string) []unixSocket {
	user := regexp.MustCompile(`users:\(\("([^"]*)"`)
	var table []unixSocket
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		s := unixSocket{path: fields[4], inode: fields[5], peer: fields[7]}
		if m := user.FindStringSubmatch(line); m != nil {
			s.process = m[1]
		}
		table = append(table, s)
	}
	return table
}

// clients returns the names of the processes that are connected to a socket.
func clients(table []unixSocket, path string) []string {
	byInode := map[string]string{}
	for _, s := range table {
		byInode[s.inode] = s.process
	}
	var found []string
	for _, s := range table {
		if s.path == path && s.peer != "0" {
			found = append(found, byInode[s.peer])
		}
	}
	return found
}
