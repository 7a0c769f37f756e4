package rig

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/crypto/bcrypt"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Private is a registry of one tenant's, that only its user may use. Containerd
// finds it by its host after Containerd.Reach.
type Private struct {
	*Front

	Host     string // as it stands in references
	User     string
	Password string // one of the rig's secrets

	registry *registry
	images   *Images
}

// Private starts a registry that asks for a password, with a front before it.
func (r *Rig) Private(ctx context.Context, tenant string) (*Private, error) {
	p := &Private{Host: tenant + ".test", User: "user-of-" + tenant, images: r.images}
	p.Password = r.Secret(p.User)
	hash, err := bcrypt.GenerateFromPassword([]byte(p.Password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	passwords := filepath.Join(r.Dir, tenant+".htpasswd")
	if err := os.WriteFile(passwords, []byte(p.User+":"+string(hash)+"\n"), 0o600); err != nil {
		return nil, err
	}
	if p.registry, err = r.startRegistry(ctx, tenant, fmt.Sprintf("auth: {htpasswd: {realm: %q, path: %q}}", tenant, passwords)); err != nil {
		return nil, err
	}
	p.registry.auth = &authn.Basic{Username: p.User, Password: p.Password}
	r.mu.Lock()
	r.registries = append(r.registries, p.registry)
	r.mu.Unlock()
	p.Front, err = r.front(ctx, p.registry)
	return p, err
}

// Push puts an image into the registry. The reference begins with its host.
func (p *Private) Push(ctx context.Context, reference string, image Image) (Pushed, error) {
	made, err := p.images.contents(reference, image)
	if err != nil {
		return Pushed{}, err
	}
	return p.registry.push(ctx, reference, made)
}

// Auth is what the kubelet sends for a pod with the right pull secret.
func (p *Private) Auth() *runtimeapi.AuthConfig {
	return &runtimeapi.AuthConfig{Username: p.User, Password: p.Password}
}

// Login is one entry of a docker config.json.
type Login struct {
	Key            string // a host, a host with a path, with globs
	User, Password string
}

// DockerConfig writes a docker config.json and returns its path.
func (r *Rig) DockerConfig(name string, logins ...Login) (string, error) {
	entries := map[string]any{}
	for _, login := range logins {
		pair := login.User + ":" + login.Password
		entries[login.Key] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(pair))}
	}
	file := filepath.Join(r.Dir, "auth", name+".json")
	if err := writeJSON(file, map[string]any{"auths": entries}); err != nil {
		return "", err
	}
	return file, os.Chmod(file, 0o600)
}

// Secret makes a password that no log and no state file may ever show. A user
// belongs to it, for the two are often written as one.
func (r *Rig) Secret(user string) string {
	return r.secret(secret{user: user, password: rand.Text()})
}

// SecretInErrors is one that containerd shows in its errors and its own log, and
// that the others have to keep nevertheless.
func (r *Rig) SecretInErrors(user string) string {
	return r.secret(secret{user: user, password: rand.Text(), inErrors: true})
}

func (r *Rig) secret(s secret) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = append(r.secrets, s)
	return s.password
}

// Plugin is a credential provider: the program in test/real/images/provider.
type Plugin struct {
	Config string // the CredentialProviderConfig
	BinDir string

	dir string
}

// Plugin writes the configuration of a credential provider for the images that
// match. It has no answer yet.
func (r *Rig) Plugin(name string, matchImages ...string) (*Plugin, error) {
	dir := filepath.Join(r.Dir, "plugins", name)
	p := &Plugin{Config: filepath.Join(dir, "config.json"), BinDir: filepath.Join(dir, "bin"), dir: dir}
	if err := os.MkdirAll(p.BinDir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Link(r.Program("provider"), filepath.Join(p.BinDir, "provider")); err != nil {
		return nil, err
	}
	return p, writeJSON(p.Config, map[string]any{
		"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1",
		"providers": []map[string]any{{
			"name": "provider", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
			"matchImages": matchImages, "defaultCacheDuration": "0s",
			"args": []string{filepath.Join(dir, "calls"), filepath.Join(dir, "answer")},
		}},
	})
}

// Answer makes the plugin print the text from now on. It fails before the first.
func (p *Plugin) Answer(text string) error {
	file := filepath.Join(p.dir, "answer")
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// Login makes the plugin answer with a login, good for a duration.
func (p *Plugin) Login(cacheKeyType, duration string, login Login) error {
	answer, err := json.Marshal(map[string]any{
		"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
		"cacheKeyType": cacheKeyType, "cacheDuration": duration,
		"auth": map[string]any{login.Key: map[string]string{"username": login.User, "password": login.Password}},
	})
	return errors.Join(err, p.Answer(string(answer)))
}

// Calls are the requests that the plugin was sent, one JSON document each.
func (p *Plugin) Calls() ([]string, error) {
	return lines(filepath.Join(p.dir, "calls"))
}

// Path is the file that the plugin prints, for a test that makes it a special one.
func (p *Plugin) Path() string { return filepath.Join(p.dir, "answer") }
