package handlers

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
)

// addServiceEnv appends the Service variables that a container lacks to its
// request, and reports whether there were some. The rest of the request stays as
// it came, what this program does not know of it included.
func (r *Runtime) addServiceEnv(handler string, request *runtimeapi.CreateContainerRequest) (changed bool, err error) {
	sandbox, config := request.GetSandboxConfig(), request.GetConfig()
	if r.ServiceEnv == nil || config == nil {
		return false, nil
	}
	pod := serviceenv.Pod{Handler: handler, Namespace: sandbox.GetMetadata().GetNamespace(), Annotations: sandbox.GetAnnotations()}
	wanted, err := r.ServiceEnv.Wanted(pod)
	if err != nil || !wanted {
		return false, serviceEnvError(config, err)
	}
	set := make(map[string]bool, len(config.GetEnvs()))
	for _, e := range config.GetEnvs() {
		set[e.GetKey()] = true
	}
	missing, err := r.ServiceEnv.Missing(pod, set)
	if err != nil {
		return false, serviceEnvError(config, err)
	}
	for _, v := range missing {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return len(missing) > 0, nil
}

// serviceEnvError is what the caller of a create is told.
func serviceEnvError(config *runtimeapi.ContainerConfig, err error) error {
	if err == nil {
		return nil
	}
	code := codes.Internal
	switch {
	case errors.Is(err, serviceenv.ErrAnnotation):
		code = codes.InvalidArgument
	case errors.Is(err, serviceenv.ErrUnavailable):
		code = codes.Unavailable
	case errors.Is(err, serviceenv.ErrTooLarge):
		code = codes.ResourceExhausted
	}
	return status.Errorf(code, "Service variables of container %q: %v", config.GetMetadata().GetName(), err)
}
