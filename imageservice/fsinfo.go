package imageservice

import (
	"context"
	"slices"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// imageFsInfo answers the filesystems of all stores, the default one's first:
// the kubelet evicts by the first alone. A filesystem that two stores share is
// named once, or its use would count twice. Only the default store is needed;
// another one that does not answer is left out.
func (s *Service) imageFsInfo(ctx context.Context, call *rawcri.Call) error {
	if s.single() {
		return s.Backends.Forward(ctx, call, s.stores[0])
	}
	others := make([]runtimeapi.ImageFsInfoResponse, len(s.stores)-1)
	var wg sync.WaitGroup
	for i, b := range s.stores[1:] {
		wg.Go(func() {
			frame, err := s.fetch(ctx, call, b)
			if err == nil {
				err = decode(frame, &others[i])
			}
			if err != nil {
				s.Log.WithField("backend", b.Name).WithError(err).Debug("image filesystems are left out")
			}
		})
	}
	first, err := s.Backends.Invoke(ctx, call, s.stores[0], call.Request)
	wg.Wait()
	if err != nil {
		return err
	}
	merged := &runtimeapi.ImageFsInfoResponse{}
	if err := decode(first, merged); err != nil {
		return err
	}
	for i := range others {
		merged.ImageFilesystems = addFilesystems(merged.GetImageFilesystems(), others[i].GetImageFilesystems())
		merged.ContainerFilesystems = addFilesystems(merged.GetContainerFilesystems(), others[i].GetContainerFilesystems())
	}
	return call.Reply(merged)
}

func addFilesystems(to, from []*runtimeapi.FilesystemUsage) []*runtimeapi.FilesystemUsage {
	for _, f := range from {
		same := func(known *runtimeapi.FilesystemUsage) bool {
			return known.GetFsId().GetMountpoint() == f.GetFsId().GetMountpoint()
		}
		if !slices.ContainsFunc(to, same) {
			to = append(to, f)
		}
	}
	return to
}
