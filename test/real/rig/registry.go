package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registry is one running registry.
type registry struct {
	Address string // host:port, plain HTTP

	process process
	auth    authn.Authenticator // of whoever may push
}

// startRegistry starts a registry on a port that the kernel chooses, and learns
// it from the registry's log. Auth is the part of its configuration that says
// who may use it; "" is everybody. The name is that of its files.
func (r *Rig) startRegistry(ctx context.Context, name, auth string) (*registry, error) {
	config := filepath.Join(r.Dir, name+".yml")
	content := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: "127.0.0.1:0"}
%s
`, filepath.Join(r.Dir, name), auth)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return nil, err
	}
	server := &registry{auth: authn.Anonymous, process: process{
		name: name, path: filepath.Join(r.Parts.Registry, "registry"),
		args: []string{"serve", config}, log: filepath.Join(r.Dir, name+".log"),
	}}
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	return server, server.process.start(ctx, func(context.Context) error {
		log, err := os.ReadFile(server.process.log)
		if err != nil {
			return err
		}
		found := listening.FindSubmatch(log)
		if found == nil {
			return errors.New("the registry has not said where it listens")
		}
		server.Address = string(found[1])
		return nil
	})
}

func (s *registry) push(ctx context.Context, reference string, made content) (Pushed, error) {
	target, err := s.target(reference)
	if err != nil {
		return Pushed{}, err
	}
	whole, pushed, err := made.assemble()
	if err != nil {
		return Pushed{}, err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuth(s.auth)}
	if index, ok := whole.(v1.ImageIndex); ok {
		err = remote.WriteIndex(target, index, options...)
	} else if image, ok := whole.(v1.Image); ok {
		err = remote.Write(target, image, options...)
	}
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", reference, err)
	}
	return pushed, nil
}

// target is the place in the registry of an image of any host.
func (s *registry) target(reference string) (name.Reference, error) {
	named, err := name.NewTag(reference)
	if err != nil {
		return nil, err
	}
	return name.NewTag(s.Address + "/" + named.RepositoryStr() + ":" + named.TagStr())
}
