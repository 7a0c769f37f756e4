package rig

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PauseImage is the sandbox image of the rig's containerds. The registry has it
// from the start.
const PauseImage = "example.test/pause:v1"

// Images is the rig's registry. Containerd asks it for every image name; the
// host in the name does not matter.
type Images struct {
	*registry

	layers map[string]v1.Layer // by the program that each is made for
}

// Image says how a test image differs from the others. Its program is the one
// in test/real/images/app, linked under each of its names in /bin, its default
// command `serve`.
type Image struct {
	User string   // "" is root; a container needs numbers, for there is no /etc/passwd
	Env  []string // "KEY=value"
	// Identity tells images apart: those with one identity are one image under
	// several names. "" stands for the name.
	Identity string
	// Ballast is so many random bytes in a layer of their own.
	Ballast int
	// Platforms make an index of images that differ in nothing else; the first is
	// the one that Pushed tells of. None is one image, for this machine.
	Platforms []string
	// Layers are plain tar files, the lowest first, that make an image without
	// that program. Then Command is its default command.
	Layers  [][]byte
	Command []string
}

// Pushed says what a registry made of an image.
type Pushed struct {
	Digest string // of the manifest: "sha256:…"; name@Digest pulls it
	ID     string // of the configuration: "sha256:…"; CRI's image id
	Top    string // the chain id of its layers: "sha256:…"; containerd's name of the snapshot
}

// appletNames are the links to the app program.
func appletNames() []string {
	return []string{
		"append", "cat", "echo", "env", "exit", "hostname", "id", "leave", "ls", "pgrep", "serve", "sh", "sleep", "stderr",
		"stubborn", "tar", "top", "try", "tty",
	}
}

func newImages(ctx context.Context, r *Rig) (*Images, error) {
	images := &Images{layers: map[string]v1.Layer{}}
	if err := images.buildLayers(ctx, r); err != nil {
		return nil, fmt.Errorf("build the test images: %w", err)
	}
	if err := images.serve(ctx, r); err != nil {
		return nil, err
	}
	pause := content{config: v1.Config{Entrypoint: []string{"/bin/pause"}}, layers: []v1.Layer{images.layers["pause"]}}
	if _, err := images.push(ctx, PauseImage, pause); err != nil {
		return nil, errors.Join(err, images.close())
	}
	return images, nil
}

// Push puts an image into the registry under a full name, "example.test/app:v1".
// Images of different names are different images, with ids of their own, so
// that removing one never takes another away.
func (r *Rig) Push(ctx context.Context, reference string, image Image) (Pushed, error) {
	made, err := r.images.contents(reference, image)
	if err != nil {
		return Pushed{}, err
	}
	return r.images.push(ctx, reference, made)
}

// content is what an image is made of.
type content struct {
	config    v1.Config
	layers    []v1.Layer
	platforms []string
}

// contents are the configuration and the layers of an image.
func (i *Images) contents(reference string, image Image) (content, error) {
	config := v1.Config{
		Entrypoint: []string{}, Cmd: []string{"/bin/serve"}, User: image.User,
		Env: append([]string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "RIG_IMAGE=" + cmp.Or(image.Identity, reference)}, image.Env...),
	}
	layers := []v1.Layer{i.layers["app"]}
	if image.Layers != nil {
		config.Cmd, layers = image.Command, nil
	}
	for _, layer := range image.Layers {
		layers = append(layers, static.NewLayer(layer, types.OCIUncompressedLayer))
	}
	if image.Ballast > 0 {
		ballast, err := pack("ballast", randomBytes(image.Ballast), nil)
		if err != nil {
			return content{}, err
		}
		layers = append(layers, static.NewLayer(ballast, types.OCIUncompressedLayer))
	}
	return content{config, layers, image.Platforms}, nil
}

// randomBytes do not compress and are in no other image.
func randomBytes(count int) []byte {
	random := make([]byte, count)
	rand.Read(random)
	return random
}

// assemble is the image for this machine's platform, or an index of images for
// those that are named, which differ in their configuration alone.
func (c content) assemble() (remote.Taggable, Pushed, error) {
	if c.platforms == nil {
		image, err := c.image(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
		if err != nil {
			return nil, Pushed{}, err
		}
		pushed, err := identify(image, image)
		return image, pushed, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var first v1.Image
	for _, name := range c.platforms {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, Pushed{}, err
		}
		image, err := c.image(*platform)
		if err != nil {
			return nil, Pushed{}, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		if first == nil {
			first = image
		}
	}
	pushed, err := identify(index, first)
	return index, pushed, err
}

func (c content) image(platform v1.Platform) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, c.layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Config = platform.Architecture, platform.OS, c.config
	return mutate.ConfigFile(image, file)
}

// identify names what is pushed by its own digest and by its image.
func identify(whole interface{ Digest() (v1.Hash, error) }, image v1.Image) (Pushed, error) {
	digest, digestErr := whole.Digest()
	id, idErr := image.ConfigName()
	file, fileErr := image.ConfigFile()
	if err := errors.Join(digestErr, idErr, fileErr); err != nil {
		return Pushed{}, err
	}
	top := file.RootFS.DiffIDs[0].String()
	for _, layer := range file.RootFS.DiffIDs[1:] {
		sum := sha256.Sum256([]byte(top + " " + layer.String()))
		top = "sha256:" + hex.EncodeToString(sum[:])
	}
	return Pushed{Digest: digest.String(), ID: id.String(), Top: top}, nil
}

// buildLayers compiles the programs and packs each with its links as a layer.
func (i *Images) buildLayers(ctx context.Context, r *Rig) error {
	folder := filepath.Join(r.Dir, "programs")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", folder+"/", "./images/...")
	cmd.Dir = filepath.Join(r.Root, "test", "real")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(output))
	}
	for program, links := range map[string][]string{"pause": nil, "app": appletNames()} {
		content, err := os.ReadFile(filepath.Join(folder, program))
		if err != nil {
			return err
		}
		packed, err := pack(program, content, links)
		if err != nil {
			return err
		}
		i.layers[program] = static.NewLayer(packed, types.OCIUncompressedLayer)
	}
	return nil
}

// Program is the path of one of the programs in test/real/images, built.
func (r *Rig) Program(name string) string { return filepath.Join(r.Dir, "programs", name) }

// pack is a tar file with the program in /bin, its links, and a /tmp. The links
// are hard: masking one of the paths must not mask the program.
func pack(program string, content []byte, links []string) ([]byte, error) {
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	file := path.Join("bin", program)
	headers := []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: file, Mode: 0o755, Size: int64(len(content))},
	}
	for _, link := range links {
		headers = append(headers, &tar.Header{Typeflag: tar.TypeLink, Name: path.Join("bin", link), Linkname: file, Mode: 0o755})
	}
	for _, header := range headers {
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := archive.Write(content); err != nil {
				return nil, err
			}
		}
	}
	return packed.Bytes(), archive.Close()
}

// serve starts the registry, which anybody may use.
func (i *Images) serve(ctx context.Context, r *Rig) error {
	server, err := r.startRegistry(ctx, "registry", "")
	if err != nil {
		return err
	}
	i.registry = server
	return nil
}

func (i *Images) close() error {
	if i.registry == nil {
		return nil
	}
	return i.registry.process.stop()
}
