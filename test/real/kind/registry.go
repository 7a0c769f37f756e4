package kind

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// Registry is one on the nodes' network that asks for a password. The daemon is
// logged in.
type Registry struct {
	Host           string // as it stands in references
	User, Password string
}

const registryConfig = `version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: /data}}
http: {addr: ":5000"}
auth: {htpasswd: {realm: kind, path: /passwords}}
`

// Registry starts it as a container beside the nodes.
func (c *Cluster) Registry(ctx context.Context) (*Registry, error) {
	r := &Registry{User: "tenant", Password: rand.Text()}
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	const name = "cri-proxy.test/registry:v1"
	tree := c.file("image-registry")
	err = c.programTree(ctx, tree, filepath.Join(c.parts.Registry, "registry"), "registry")
	err = errors.Join(err, os.WriteFile(filepath.Join(tree, "config.yml"), []byte(registryConfig), 0o644),
		os.WriteFile(filepath.Join(tree, "passwords"), []byte(r.User+":"+string(hash)+"\n"), 0o644))
	if err != nil {
		return nil, err
	}
	if err := c.importImage(ctx, tree, name, `CMD ["registry", "serve", "/config.yml"]`); err != nil {
		return nil, err
	}
	if _, err := c.Run(ctx, nil, "run", "--detach", "--name", c.Name+"-registry", "--network", "kind", name); err != nil {
		return nil, err
	}
	address, err := c.Run(ctx, nil, "inspect", "--format", "{{.NetworkSettings.Networks.kind.IPAddress}}", c.Name+"-registry")
	if err != nil {
		return nil, err
	}
	r.Host = strings.TrimSpace(address) + ":5000"
	return r, c.login(ctx, r)
}

// login waits until the registry answers.
func (c *Cluster) login(ctx context.Context, r *Registry) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err := rig.Poll(ctx, func() error {
		_, err := c.Run(ctx, strings.NewReader(r.Password), "login", "--username", r.User, "--password-stdin", r.Host)
		return err
	})
	if err != nil {
		return fmt.Errorf("log in to %s: %w", r.Host, err)
	}
	return nil
}

// Load is "kind load docker-image".
func (c *Cluster) Load(ctx context.Context, image string) error {
	_, err := output(c.Command(ctx, c.kind, "load", "docker-image", "--name", c.Name, image), nil)
	return err
}
