package fakeruntime

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version ignores the version that the caller asks for.
func (s *service) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	o := s.options()
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0",
		RuntimeName:       o.Name,
		RuntimeVersion:    o.Version,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status lists the handlers sorted by name, so the default, "", first.
func (s *service) Status(_ context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	o := s.options()
	resp := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: o.conditions()}}
	if req.GetVerbose() {
		resp.Info = o.Info
		if resp.Info == nil {
			resp.Info = map[string]string{"config": "{}"}
		}
	}
	if o.OldStatus {
		return resp, nil
	}
	resp.Features = o.NodeFeatures
	for _, name := range slices.Sorted(slices.Values(append([]string{""}, o.Runtimes...))) {
		features := o.Features[name]
		if features == nil {
			features = &runtimeapi.RuntimeHandlerFeatures{}
		}
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Name: name, Features: features})
	}
	return resp, nil
}

func (o Options) conditions() []*runtimeapi.RuntimeCondition {
	if o.Conditions != nil {
		return o.Conditions
	}
	return []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}
}

// RuntimeConfig tells the cgroup driver.
func (s *service) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{
		Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: s.options().CgroupDriver},
	}, nil
}

// UpdateRuntimeConfig changes nothing; what was asked is in the journal.
func (*service) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
