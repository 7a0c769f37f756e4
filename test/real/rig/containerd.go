package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Containerd is one containerd of the rig.
type Containerd struct {
	Name   string
	Socket string // path; Endpoint is the same as a URL
	Subnet string // of its pods, three numbers: "10.1.2"

	rig      *Rig
	dir      string
	programs string // the folder that its own come from
	bridge   string
	process  process
}

// ContainerdOptions is what Rig.Containerd needs.
type ContainerdOptions struct {
	Name string // unique in the rig, at most eight characters
	// Handlers are runtime handlers beside "runc". Each is the same runc with a
	// state folder of its own, and its containers carry an environment variable
	// RIG_HANDLER=<containerd>/<handler>.
	Handlers []string
	// Old takes containerd 1.7, built by Parts.BuildContainerd17, instead of 2.x.
	Old bool
	// Snapshotters are those of handlers that do not use overlayfs. Without a line
	// for each in the configuration of its transfer service, containerd 2.4 fails
	// every pull for them.
	Snapshotters map[string]string
	// DiscardLayers has it forget the content of layers that are unpacked.
	DiscardLayers bool
	// PullTimeout is how long a pull may see no byte, and has containerd 2.x pull
	// without its transfer service, which did not keep to it. "" is its default.
	PullTimeout string
	// DiskBytes is the size of a disk of its own; 0 is the machine's.
	DiskBytes int64
	// Collector is the host:port of an OTLP/gRPC collector for its spans; "" is none.
	Collector string
	// HostPorts adds the portmap plugin. It leaves its own empty chains in the
	// machine's iptables.
	HostPorts bool
}

// Containerd configures another containerd and starts it.
func (r *Rig) Containerd(ctx context.Context, options ContainerdOptions) (*Containerd, error) {
	r.mu.Lock()
	index := len(r.containerd)
	dir, programs := filepath.Join(r.Dir, options.Name), r.Parts.Containerd
	if options.Old {
		programs = r.Parts.Containerd17
	}
	c := &Containerd{
		Name: options.Name, Socket: filepath.Join(dir, "c.sock"), rig: r, dir: dir, programs: programs,
		bridge: fmt.Sprintf("%s%s%c", prefix, r.id(), 'a'+index),
	}
	c.process = process{
		name: "containerd " + options.Name, path: filepath.Join(programs, "containerd"),
		args: []string{"--config", filepath.Join(dir, "config.toml")}, log: filepath.Join(r.Dir, options.Name+".log"),
		// The shim, asked for what it can do, looks for runc by its name.
		env: []string{"PATH=" + r.Parts.Runc + ":" + os.Getenv("PATH")},
	}
	if options.Collector != "" {
		c.process.env = append(c.process.env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+options.Collector,
			"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_BSP_SCHEDULE_DELAY=100")
	}
	r.containerd = append(r.containerd, c)
	r.mu.Unlock()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := mountDisk(filepath.Join(dir, "root"), options.DiskBytes); err != nil {
		return nil, fmt.Errorf("make a disk for containerd %s: %w", c.Name, err)
	}
	if err := c.configure(ctx, options, index); err != nil {
		return nil, fmt.Errorf("configure containerd %s: %w", c.Name, err)
	}
	return c, c.Start(ctx)
}

// mountDisk makes a folder that holds no more than so many bytes. Empty and Close
// unmount it, as all below the rig's folder.
func mountDisk(folder string, size int64) error {
	if size == 0 {
		return nil
	}
	return errors.Join(os.Mkdir(folder, 0o755), unix.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
}

// HostsDir is the folder that says where it finds registries.
func (c *Containerd) HostsDir() string { return filepath.Join(c.dir, "certs.d") }

// Ctr runs containerd's own client in the namespace of Kubernetes and returns
// what it printed.
func (c *Containerd) Ctr(ctx context.Context, arguments ...string) (string, error) {
	arguments = append([]string{"--address", c.Socket, "--namespace", "k8s.io"}, arguments...)
	output, err := exec.CommandContext(ctx, filepath.Join(c.rig.Parts.Containerd, "ctr"), arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return strings.TrimSpace(string(output)), nil
}

// Endpoint is the socket as kubelet and crictl take it.
func (c *Containerd) Endpoint() string { return "unix://" + c.Socket }

// Start starts it with the state that it has, and waits until it says that its
// runtime and its network are ready.
func (c *Containerd) Start(ctx context.Context) error {
	return c.process.start(ctx, func(ctx context.Context) error { return ready(ctx, c.Endpoint()) })
}

// Stop ends it as an administrator would. Its pods live on.
func (c *Containerd) Stop() error { return c.process.stop() }

// Kill ends it with SIGKILL. Its pods live on.
func (c *Containerd) Kill() error { return c.process.kill() }

// Empty removes pods, images and all other state, as a new disk would have
// them. It must be stopped.
func (c *Containerd) Empty(ctx context.Context) error {
	if c.process.running != nil {
		return fmt.Errorf("empty containerd %s: stop it first", c.Name)
	}
	err := errors.Join(endContainers(ctx, filepath.Join(c.dir, "state")), endShims(ctx, c.Socket), unmountBelow(c.dir))
	if err != nil {
		return err
	}
	return errors.Join(
		os.RemoveAll(filepath.Join(c.dir, "root")), os.RemoveAll(filepath.Join(c.dir, "state")),
		os.RemoveAll(filepath.Join(c.dir, "ipam")), removeLink(ctx, c.bridge))
}

// close removes the pods while there is a containerd to do it, and then what is
// left by hand.
func (c *Containerd) close(ctx context.Context) error {
	var problems []error
	if c.process.running != nil {
		problems = append(problems, removePods(ctx, c.Endpoint()), c.Stop())
	}
	return errors.Join(append(problems, c.Empty(ctx))...)
}

func (c *Containerd) configure(ctx context.Context, options ContainerdOptions, index int) error {
	// Two subnets that meet would break both, so rigs start at places far apart.
	subnet := (c.rig.number() + uint32(index)) % (64 * 256)
	c.Subnet = fmt.Sprintf("10.%d.%d", 128+subnet/256, subnet%256)
	if err := c.writeNetwork(options.HostPorts); err != nil {
		return err
	}
	if err := c.writeRegistry(); err != nil {
		return err
	}
	for _, handler := range options.Handlers {
		if err := c.writeSpec(ctx, handler); err != nil {
			return err
		}
	}
	file, err := os.Create(filepath.Join(c.dir, "config.toml"))
	if err != nil {
		return err
	}
	values := map[string]any{
		"Dir": c.dir, "Socket": c.Socket, "Runc": c.rig.Parts.Runc, "Shim": c.programs, "CNI": c.rig.Parts.CNI,
		"Pause": PauseImage, "Handlers": options.Handlers,
		"Snapshotters": options.Snapshotters, "PullTimeout": options.PullTimeout, "DiscardLayers": options.DiscardLayers,
		"Collector": options.Collector, "Platform": "linux/" + runtime.GOARCH,
	}
	config := containerdConfig()
	if options.Old {
		config = containerd17Config()
	}
	return errors.Join(config.Execute(file, values), file.Close())
}

// writeNetwork writes the CNI configuration: a bridge of its own, addresses from
// a file of its own, and no masquerading, for a rig has nobody outside to talk to.
func (c *Containerd) writeNetwork(hostPorts bool) error {
	plugins := []map[string]any{{
		"type": "bridge", "bridge": c.bridge, "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(c.dir, "ipam"),
			"ranges": [][]map[string]string{{{"subnet": c.Subnet + ".0/24"}}},
			"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
		},
	}}
	if hostPorts {
		plugins = append(plugins, map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}})
	}
	return writeJSON(filepath.Join(c.dir, "cni", "10-rig.conflist"),
		map[string]any{"cniVersion": "1.0.0", "name": c.bridge, "plugins": plugins})
}

// writeRegistry sends every image name, whatever its host, to the rig's registry.
func (c *Containerd) writeRegistry() error {
	return c.Reach("_default", c.rig.images.Address)
}

// Reach sends image names of one host to the registry at an address. Containerd
// looks for it at each pull.
func (c *Containerd) Reach(host, address string) error {
	folder := filepath.Join(c.HostsDir(), host)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	address = "http://" + address
	hosts := fmt.Sprintf("server = %q\n\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", address, address)
	return os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(hosts), 0o644)
}

// writeSpec writes the base of a handler's containers: containerd's own, with
// one variable more, and without the limits that ctr adds for its own use (they
// would fail pods in a user namespace).
func (c *Containerd) writeSpec(ctx context.Context, handler string) error {
	output, err := exec.CommandContext(ctx, filepath.Join(c.rig.Parts.Containerd, "ctr"), "oci", "spec").Output()
	if err != nil {
		return fmt.Errorf("ask ctr for a runtime spec: %w", err)
	}
	var spec map[string]any
	if err := json.Unmarshal(output, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return errors.New("the runtime spec has no process")
	}
	delete(process, "rlimits")
	process["env"] = []string{"RIG_HANDLER=" + c.Name + "/" + handler}
	return writeJSON(filepath.Join(c.dir, handler+".json"), spec)
}

// ready says why a runtime is not ready for pods.
func ready(ctx context.Context, endpoint string) (err error) {
	conn, err := Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	answer, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	wanted := []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady}
	for _, condition := range answer.GetStatus().GetConditions() {
		if condition.GetStatus() {
			wanted = slices.DeleteFunc(wanted, func(kind string) bool { return kind == condition.GetType() })
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return fmt.Errorf("not yet: %s", strings.Join(wanted, ", "))
}

func writeJSON(file string, content any) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, encoded, 0o644)
}
