package containerd

import (
	"context"
	"fmt"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// What marks an image as one of CRI's: ImageLabelKey and ImageLabelValue in
// containerd's internal/cri/labels, the same since 1.0.
const (
	managedLabel = "io.cri-containerd.image"
	managed      = "managed"
)

// image returns what a name refers to.
func (s *Store) image(ctx context.Context, name string) (images.Image, error) {
	answer, err := s.images.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return fromAPI(answer.GetImage()), nil
}

// put gives a blob a name that CRI shows, also if it is another one's now, as a
// pull does.
func (s *Store) put(ctx context.Context, name string, target ocispec.Descriptor) error {
	image := &imagesapi.Image{
		Name:   name,
		Labels: map[string]string{managedLabel: managed},
		Target: &types.Descriptor{
			MediaType: target.MediaType, Digest: target.Digest.String(), Size: target.Size, Annotations: target.Annotations,
		},
	}
	_, err := s.images.Create(ctx, &imagesapi.CreateImageRequest{Image: image})
	if err = errgrpc.ToNative(err); errdefs.IsAlreadyExists(err) {
		mask := &fieldmaskpb.FieldMask{Paths: []string{"target", "labels." + managedLabel}}
		_, err = s.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: image, UpdateMask: mask})
		err = errgrpc.ToNative(err)
	}
	if err != nil {
		return fmt.Errorf("name the image %q: %w", name, err)
	}
	return nil
}

// names returns the names by which CRI shall know a copy of an image besides
// its id: the one that was asked for and its name by digest, if it has one; for
// an id all that it has.
func (s *Store) names(ctx context.Context, image images.Image) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(image.Name)
	if err != nil || isID(image.Name) {
		return s.namesOf(ctx, image.Target.Digest)
	}
	names := []string{image.Name}
	canonical, err := reference.WithDigest(reference.TrimNamed(named), image.Target.Digest)
	if err != nil || canonical.String() == image.Name {
		return names, nil //nolint:nilerr // Then it has no name by digest.
	}
	other, err := s.image(ctx, canonical.String())
	if errdefs.IsNotFound(err) || (err == nil && other.Target.Digest != image.Target.Digest) {
		return names, nil
	}
	return append(names, canonical.String()), err
}

// namesOf returns the names of a blob that are not ids.
func (s *Store) namesOf(ctx context.Context, target digest.Digest) (names []string, err error) {
	answer, err := s.images.List(ctx, &imagesapi.ListImagesRequest{Filters: []string{"target.digest==" + target.String()}})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	for _, i := range answer.GetImages() {
		if !isID(i.GetName()) {
			names = append(names, i.GetName())
		}
	}
	return names, nil
}

// isID reports whether a name is an image id: CRI stores each image under the
// digest of its config too.
func isID(name string) bool { return digest.Digest(name).Validate() == nil }

func fromAPI(i *imagesapi.Image) images.Image {
	target := i.GetTarget()
	return images.Image{
		Name:   i.GetName(),
		Labels: i.GetLabels(),
		Target: ocispec.Descriptor{
			MediaType: target.GetMediaType(), Digest: digest.Digest(target.GetDigest()), Size: target.GetSize(), Annotations: target.GetAnnotations(),
		},
	}
}

// unpackable is the part of an image that pods here are started from.
type unpackable struct {
	image  images.Image
	config ocispec.Descriptor // Its digest is the image's id for CRI.
	layers []rootfs.Layer
}

// unpackable reads it for this platform. Not found means that there is no such
// image, or none for this platform.
func (s *Store) unpackable(ctx context.Context, name string) (unpackable, error) {
	image, err := s.image(ctx, name)
	if err != nil {
		return unpackable{}, err
	}
	manifest, err := images.Manifest(ctx, s.content, image.Target, s.platform)
	if err != nil {
		return unpackable{}, fmt.Errorf("image %q: %w", name, err)
	}
	diffIDs, err := images.RootFS(ctx, s.content, manifest.Config)
	if err != nil {
		return unpackable{}, fmt.Errorf("image %q: %w", name, err)
	}
	u := unpackable{image: image, config: manifest.Config}
	for _, blob := range manifest.Layers {
		if images.IsLayerType(blob.MediaType) && len(u.layers) < len(diffIDs) {
			diff := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffIDs[len(u.layers)]}
			u.layers = append(u.layers, rootfs.Layer{Blob: blob, Diff: diff})
		}
	}
	if len(u.layers) != len(diffIDs) {
		return unpackable{}, fmt.Errorf("image %q: its config has %d layers and its manifest %d: %w", name, len(diffIDs), len(u.layers), errdefs.ErrInvalidArgument)
	}
	return u, nil
}

// chainID is the name of the snapshot with all layers.
func (u unpackable) chainID() string {
	diffs := make([]digest.Digest, len(u.layers))
	for i, layer := range u.layers {
		diffs[i] = layer.Diff.Digest
	}
	return identity.ChainID(diffs).String()
}
