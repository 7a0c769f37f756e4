package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/containerd"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

const askTime = 5 * time.Second

// runtimeInfo is what a runtime tells of itself.
type runtimeInfo struct {
	name     string
	standard string // "" is not told.
	runtimes []string
}

// makeConfig writes a configuration in which each runtime of the node's runtime is
// a handler of the same name, so that every RuntimeClass means what it meant.
func (o Options) makeConfig(ctx context.Context, endpoint string) ([]byte, error) {
	info, err := o.askRuntime(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("the runtime %s, from which the configuration is made: %w", endpoint, err)
	}
	standard := info.standard
	if standard == "" {
		standard = "default"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by cri-proxy install from the runtime %s.\n# cri-proxy config default explains every key.\nversion = 1\n", info.name)
	fmt.Fprintf(&b, "default_handler = %q\n\n[backends.runtime]\nendpoint = %q\n", standard, endpoint)
	if info.standard == "" {
		fmt.Fprintf(&b, "\n[handlers.default]\nbackend = \"runtime\"\nruntime = \"\" # Its own default, whose name it does not tell.\n")
	}
	for _, name := range info.runtimes {
		fmt.Fprintf(&b, "\n[handlers.%q]\nbackend = \"runtime\"\n", name)
	}
	return []byte(b.String()), nil
}

func (o Options) askRuntime(ctx context.Context, endpoint string) (info runtimeInfo, err error) {
	err = o.call(ctx, endpoint, func(ctx context.Context, api runtimeapi.RuntimeServiceClient) error {
		version, err := api.Version(ctx, &runtimeapi.VersionRequest{})
		if err != nil {
			return err
		}
		info.name = version.GetRuntimeName() + " " + version.GetRuntimeVersion()
		status, err := api.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		config := containerd.ParseCRIConfig(status.GetInfo())
		if config != nil {
			info.standard = config.Containerd.DefaultRuntimeName
		}
		info.runtimes = config.Runtimes()
		for _, h := range status.GetRuntimeHandlers() {
			if h.GetName() != "" {
				info.runtimes = append(info.runtimes, h.GetName())
			}
		}
		return nil
	})
	slices.Sort(info.runtimes)
	info.runtimes = slices.Compact(info.runtimes)
	if !slices.Contains(info.runtimes, info.standard) {
		info.standard = ""
	}
	return info, err
}

// call asks a CRI socket of the node.
func (o Options) call(ctx context.Context, endpoint string, do func(context.Context, runtimeapi.RuntimeServiceClient) error) error {
	file, err := configs.SocketPath(endpoint)
	if err != nil {
		return err
	}
	conn, err := rawcri.Dial(o.path(file))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return errors.Join(do(ctx, runtimeapi.NewRuntimeServiceClient(conn)), conn.Close())
}
