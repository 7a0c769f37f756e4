package handlers

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// listMetricDescriptors answers each metric's descriptor once. Two backends
// that label one metric differently are an error: label values come without
// their keys, so the samples could not be told apart.
func (r *Runtime) listMetricDescriptors(ctx context.Context, call *rawcri.Call) error {
	if r.Backends.Single() {
		return r.toDefault(ctx, call)
	}
	parts, err := r.parts(ctx, call, filter{all: true})
	defer free(parts)
	if err != nil {
		return err
	}
	union := &runtimeapi.ListMetricDescriptorsResponse{}
	keys := map[string][]string{}
	for _, part := range parts {
		var list runtimeapi.ListMetricDescriptorsResponse
		if err := part.Decode(&list); err != nil {
			return err
		}
		for _, d := range list.GetDescriptors() {
			known, twice := keys[d.GetName()]
			if twice && !slices.Equal(known, d.GetLabelKeys()) {
				return status.Errorf(codes.FailedPrecondition, "the backends disagree on metric %q: label keys %q and %q", d.GetName(), known, d.GetLabelKeys())
			}
			if !twice {
				keys[d.GetName()] = d.GetLabelKeys()
				union.Descriptors = append(union.Descriptors, d)
			}
		}
	}
	return call.Reply(union)
}
