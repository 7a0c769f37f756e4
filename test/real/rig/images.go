package rig

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
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
	Address string // host:port, plain HTTP

	process process
	layers  map[string]v1.Layer // by the program that each is made for
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
	// Layers are plain tar files, the lowest first, that make an image without
	// that program. Then Command is its default command.
	Layers  [][]byte
	Command []string
}

// Pushed says what a registry made of an image.
type Pushed struct {
	Digest string // of the manifest: "sha256:…"; name@Digest pulls it
	ID     string // of the configuration: "sha256:…"; CRI's image id
}

// appletNames are the links to the app program.
func appletNames() []string {
	return []string{
		"append", "cat", "echo", "env", "exit", "hostname", "id", "ls", "pgrep", "serve", "sh", "sleep", "stderr", "top", "tty",
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
	config := v1.Config{Entrypoint: []string{"/bin/pause"}}
	if _, err := images.push(ctx, PauseImage, config, images.layers["pause"]); err != nil {
		return nil, errors.Join(err, images.close())
	}
	return images, nil
}

// Push puts an image into the registry under a full name, "example.test/app:v1".
// Images of different names are different images, with ids of their own, so
// that removing one never takes another away.
func (r *Rig) Push(ctx context.Context, reference string, image Image) (Pushed, error) {
	config := v1.Config{
		Entrypoint: []string{}, Cmd: []string{"/bin/serve"}, User: image.User,
		Env: append([]string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "RIG_IMAGE=" + cmp.Or(image.Identity, reference)}, image.Env...),
	}
	if image.Layers == nil {
		return r.images.push(ctx, reference, config, r.images.layers["app"])
	}
	layers := make([]v1.Layer, 0, len(image.Layers))
	for _, layer := range image.Layers {
		layers = append(layers, static.NewLayer(layer, types.OCIUncompressedLayer))
	}
	config.Cmd = image.Command
	return r.images.push(ctx, reference, config, layers...)
}

func (i *Images) push(ctx context.Context, reference string, config v1.Config, layers ...v1.Layer) (Pushed, error) {
	image, err := assemble(layers, config)
	if err != nil {
		return Pushed{}, err
	}
	target, err := i.target(reference)
	if err != nil {
		return Pushed{}, err
	}
	if err := remote.Write(target, image, remote.WithContext(ctx)); err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", reference, err)
	}
	return identify(image)
}

// target is the place in the rig's registry of an image of any host.
func (i *Images) target(reference string) (name.Reference, error) {
	named, err := name.NewTag(reference)
	if err != nil {
		return nil, err
	}
	return name.NewTag(i.Address + "/" + named.RepositoryStr() + ":" + named.TagStr())
}

func assemble(layers []v1.Layer, config v1.Config) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Config = runtime.GOARCH, "linux", config
	return mutate.ConfigFile(image, file)
}

func identify(image v1.Image) (Pushed, error) {
	digest, err := image.Digest()
	if err != nil {
		return Pushed{}, err
	}
	id, err := image.ConfigName()
	if err != nil {
		return Pushed{}, err
	}
	return Pushed{Digest: digest.String(), ID: id.String()}, nil
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

// serve starts the registry on a port that the kernel chooses and learns it
// from the registry's log.
func (i *Images) serve(ctx context.Context, r *Rig) error {
	config := filepath.Join(r.Dir, "registry.yml")
	content := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: "127.0.0.1:0"}
`, filepath.Join(r.Dir, "registry"))
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return err
	}
	i.process = process{
		name: "registry", path: filepath.Join(r.Parts.Registry, "registry"),
		args: []string{"serve", config}, log: filepath.Join(r.Dir, "registry.log"),
	}
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	return i.process.start(ctx, func(context.Context) error {
		log, err := os.ReadFile(i.process.log)
		if err != nil {
			return err
		}
		found := listening.FindSubmatch(log)
		if found == nil {
			return errors.New("the registry has not said where it listens")
		}
		i.Address = string(found[1])
		return nil
	})
}

func (i *Images) close() error { return i.process.stop() }
