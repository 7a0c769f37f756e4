package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// image finds an image in the store by its id, full or short, or by a name or digest. The handler plays no part.
func (s *state) image(name string) (*runtimeapi.Image, error) {
	if !strings.HasPrefix(name, digestPrefix) {
		ref := parseReference(name).String()
		for image := range s.images.all {
			if slices.Contains(image.GetRepoTags(), ref) || slices.Contains(image.GetRepoDigests(), ref) {
				return image, nil
			}
		}
		name = digestPrefix + name
	}
	if name == digestPrefix {
		return nil, errNotFound
	}
	return s.images.get(name)
}

// imageFor is what a pull of a reference gives: what was published, or an image made from the name.
func (s *state) imageFor(ref reference) *runtimeapi.Image {
	if image, ok := s.registry[ref.String()]; ok {
		return complete(proto.CloneOf(image), ref)
	}
	return complete(&runtimeapi.Image{}, ref)
}

// complete fills what is missing in an image, and gives it its reference.
func complete(image *runtimeapi.Image, ref reference) *runtimeapi.Image {
	if image.GetId() == "" {
		image.Id = digestOf(ref.String())
	}
	if image.GetSize() == 0 {
		image.Size = 4 << 20
	}
	switch {
	case ref.digest != "":
		image.RepoDigests = union(image.GetRepoDigests(), ref.String())
	default:
		image.RepoTags = union(image.GetRepoTags(), ref.String())
		if len(image.GetRepoDigests()) == 0 {
			image.RepoDigests = []string{ref.repository + "@" + digestOf("manifest of "+image.GetId())}
		}
	}
	return image
}

func union(set []string, more ...string) []string {
	for _, s := range more {
		if !slices.Contains(set, s) {
			set = append(set, s)
		}
	}
	return set
}

// store adds an image: its tags leave the images that had them, and the same id gets the names of both.
func (s *state) store(image *runtimeapi.Image, mark []byte) {
	for other := range s.images.all {
		if other.GetId() != image.GetId() && overlap(other.GetRepoTags(), image.GetRepoTags()) {
			s.images.put(other.GetId(), withoutTags(other, image.GetRepoTags()))
		}
	}
	if old, err := s.images.get(image.GetId()); err == nil {
		image.RepoTags = union(slices.Clone(old.GetRepoTags()), image.GetRepoTags()...)
		image.RepoDigests = union(slices.Clone(old.GetRepoDigests()), image.GetRepoDigests()...)
	}
	image.ProtoReflect().SetUnknown(mark)
	s.images.put(image.GetId(), image)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func withoutTags(image *runtimeapi.Image, tags []string) *runtimeapi.Image {
	changed := proto.CloneOf(image)
	changed.RepoTags = slices.DeleteFunc(changed.GetRepoTags(), func(s string) bool { return slices.Contains(tags, s) })
	return changed
}

// PullImage stores what the registry has, and returns its id.
func (s *service) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	o := s.options()
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, errors.New(`failed to parse image reference "": repository name must have at least one component`)
	}
	if o.Pull != nil {
		if err := o.Pull(ctx, req); err != nil {
			return nil, err
		}
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	image := s.state.imageFor(parseReference(name))
	s.state.store(image, o.itemMark())
	return &runtimeapi.PullImageResponse{ImageRef: image.GetId()}, nil
}

// ImageStatus has no image in its answer when the image is not in the store.
func (s *service) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	image, err := s.state.image(req.GetImage().GetImage())
	switch {
	case errors.Is(err, errNotFound):
		return &runtimeapi.ImageStatusResponse{}, nil
	case err != nil:
		return nil, fmt.Errorf("can not resolve %q locally: %w", req.GetImage().GetImage(), err)
	}
	resp := &runtimeapi.ImageStatusResponse{Image: image}
	if req.GetVerbose() {
		resp.Info = map[string]string{"info": fmt.Sprintf(`{"chainID":%q}`, image.GetId())}
	}
	return resp, nil
}

// ListImages returns all images: like containerd, it does not look at the filter.
func (s *service) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: s.state.listImages()}, nil
}

// StreamImages sends what ListImages returns.
func (s *service) StreamImages(_ *runtimeapi.StreamImagesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamImagesResponse]) error {
	return sendBatches(out.Context(), s.state.listImages(), s.options().StreamBatch, func(batch []*runtimeapi.Image) error {
		return out.Send(&runtimeapi.StreamImagesResponse{Images: batch})
	})
}

func (s *state) listImages() []*runtimeapi.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(s.images.all)
}

// RemoveImage removes the image with all its names. One that is not in the store is a success.
func (s *service) RemoveImage(_ context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	image, err := s.state.image(req.GetImage().GetImage())
	switch {
	case errors.Is(err, errNotFound):
	case err != nil:
		return nil, fmt.Errorf("can not resolve %q locally: %w", req.GetImage().GetImage(), err)
	default:
		s.state.images.remove(image.GetId())
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo tells one filesystem of images, which is also that of containers.
func (s *service) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	mountpoint := s.options().ImageMountpoint
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	usage := &runtimeapi.FilesystemUsage{
		Timestamp:  s.state.now(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: mountpoint},
		UsedBytes:  &runtimeapi.UInt64Value{Value: 1 << 30},
		InodesUsed: &runtimeapi.UInt64Value{Value: 1 << 10},
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{usage},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{usage},
	}, nil
}
