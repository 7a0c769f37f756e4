package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/containerd"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// runtime is one backend and what it answered.
type runtime struct {
	name     string
	cfg      configs.Backend
	err      error // Why it cannot be asked; then the rest is empty.
	version  *runtimeapi.VersionResponse
	status   *runtimeapi.StatusResponse
	driver   string // "" is not told.
	driverOf error
	images   []*runtimeapi.FilesystemUsage
	imageErr error
	// containerd is its configuration; nil for a runtime that does not tell.
	containerd *containerd.CRIConfig
}

// ask asks a runtime everything.
func (r *runtime) ask(ctx context.Context, n *node) {
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	r.err = n.call(ctx, r.cfg.Endpoint, func(api runtimeapi.RuntimeServiceClient, _ runtimeapi.ImageServiceClient) error {
		var err error
		if r.version, err = api.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
			return plain(err)
		}
		if r.status, err = api.Status(ctx, &runtimeapi.StatusRequest{Verbose: true}); err != nil {
			return plain(err)
		}
		r.containerd = containerd.ParseCRIConfig(r.status.GetInfo())
		r.askDriver(ctx, api)
		return nil
	})
	if r.err != nil {
		return
	}
	r.imageErr = n.call(ctx, r.cfg.Images(), func(_ runtimeapi.RuntimeServiceClient, api runtimeapi.ImageServiceClient) error {
		answer, err := api.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
		r.images = answer.GetImageFilesystems()
		return plain(err)
	})
}

func (r *runtime) askDriver(ctx context.Context, api runtimeapi.RuntimeServiceClient) {
	answer, err := api.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
	case err != nil:
		r.driverOf = plain(err)
	case answer.GetLinux() != nil:
		r.driver = strings.ToLower(answer.GetLinux().GetCgroupDriver().String())
	}
}

// runtimes returns the names that the runtime has for its runtimes; nil if it
// does not tell.
func (r *runtime) runtimes() []string {
	var names []string
	for _, h := range r.status.GetRuntimeHandlers() {
		if h.GetName() != "" {
			names = append(names, h.GetName())
		}
	}
	names = append(names, r.containerd.Runtimes()...)
	slices.Sort(names)
	return slices.Compact(names)
}

// call connects to a CRI socket of the node.
func (n *node) call(ctx context.Context, endpoint string, do func(runtimeapi.RuntimeServiceClient, runtimeapi.ImageServiceClient) error) error {
	file, err := configs.SocketPath(endpoint)
	if err != nil {
		return err
	}
	path := n.path(file)
	if err := reach(ctx, path); err != nil {
		return err
	}
	conn, err := rawcri.Dial(path)
	if err != nil {
		return err
	}
	return errors.Join(do(runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)), conn.Close())
}

// reach tells why a socket cannot be connected to, in words that gRPC lacks.
func reach(ctx context.Context, path string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no socket %s", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s", path)
	}
	return err
}

// plain is an error of a call without gRPC's decoration.
func plain(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	return fmt.Errorf("%s: %s", s.Code(), s.Message())
}

func (n *node) checkBackend(r *runtime) {
	c := n.about("backend", r.name)
	switch {
	case errors.Is(r.err, fs.ErrPermission):
		c.skip("%v: run this as root", r.err)
		return
	case r.err != nil:
		c.problem("start that runtime, or correct backends."+r.name+".endpoint", "it does not answer: %v", r.err)
		return
	}
	for _, condition := range r.status.GetStatus().GetConditions() {
		needed := condition.GetType() == runtimeapi.RuntimeReady || condition.GetType() == runtimeapi.NetworkReady
		if needed && !condition.GetStatus() {
			c.problem("see that runtime's log", "%s is false: %s: %s", condition.GetType(), condition.GetReason(), condition.GetMessage())
			return
		}
	}
	v := r.version
	if v.GetVersion() != "0.1.0" {
		c.problem("use a runtime that speaks CRI v1", "it speaks version %q of the kubelet's interface, and a kubelet takes only 0.1.0", v.GetVersion())
		return
	}
	if r.err == nil && r.imageErr != nil {
		c.problem("correct backends."+r.name+".image_endpoint", "its image service does not answer: %v", r.imageErr)
		return
	}
	c.ok("%s %s on %s", v.GetRuntimeName(), v.GetRuntimeVersion(), r.cfg.Endpoint)
}
