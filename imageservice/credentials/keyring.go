package credentials

import (
	"context"
	_ "crypto/sha256" // An image may be named by a digest of this kind,
	_ "crypto/sha512" // or of these, which reference checks.
	"fmt"
	"time"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
)

// Options are one handler's sources.
type Options struct {
	AuthFiles []string // Absolute paths of docker config.json files, in order.
	Providers string   // Absolute path of a kubelet CredentialProviderConfig; "" means none.
	BinDir    string   // Directory of the plugins.
	Log       *logrus.Entry
}

// Keyring finds the credentials in the sources of one handler. Any number of
// calls may use it at once.
type Keyring struct {
	auths     []*followed[*ring]
	providers *followed[[]*plugin] // Nil: none.
}

// limits are what a plugin may take.
type limits struct {
	time   time.Duration
	grace  time.Duration // How long a child that outlives its plugin may hold the output.
	output int           // Bytes of the answer.
	cached int           // Answers kept of one plugin.
	now    func() time.Time
}

// New reads and checks every source. An error names the file and what is wrong in it.
func New(o Options) (*Keyring, error) {
	return newKeyring(o, limits{time: time.Minute, grace: 5 * time.Second, output: 1 << 20, cached: 1000, now: time.Now})
}

func newKeyring(o Options, l limits) (*Keyring, error) {
	k := &Keyring{}
	for _, path := range o.AuthFiles {
		file := &followed[*ring]{path: path, log: o.Log, parse: func(content []byte) (*ring, error) {
			return parseAuthFile(path, content, o.Log)
		}}
		if _, err := file.current(); err != nil {
			return nil, err
		}
		k.auths = append(k.auths, file)
	}
	if o.Providers == "" {
		return k, nil
	}
	if o.BinDir == "" {
		return nil, fmt.Errorf("%s: the directory of its plugins is not set", o.Providers)
	}
	k.providers = &followed[[]*plugin]{path: o.Providers, log: o.Log, parse: func(content []byte) ([]*plugin, error) {
		return loadPlugins(content, o.BinDir, l, o.Log)
	}}
	if _, err := k.providers.current(); err != nil {
		return nil, err
	}
	return k, nil
}

// Lookup returns all credentials for an image, in the order in which they are to
// be tried; where there are some, a pull without any is not. None and no error
// means a pull without credentials; so it is too when the only plugins for the
// image failed, which is logged as a warning, because the kubelet does the same.
// An error means that the image has no valid name, that a file cannot be read,
// or that ctx ended while a plugin ran.
func (k *Keyring) Lookup(ctx context.Context, image string) ([]Credential, error) {
	name, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, fmt.Errorf("image %q has no name to find credentials by: %w", image, err)
	}
	repository := name.Name()
	var found []Credential
	for _, file := range k.auths {
		auths, err := file.current()
		if err != nil {
			return nil, err
		}
		found = append(found, auths.lookup(repository)...)
	}
	provided, err := k.ask(ctx, repository)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repository, err)
	}
	return append(found, provided.lookup(repository)...), nil
}

// ask collects what the plugins answer, one after another: the kubelet does not
// run two for one image at a time either.
func (k *Keyring) ask(ctx context.Context, repository string) (*ring, error) {
	var all ring
	if k.providers == nil {
		return &all, nil
	}
	plugins, err := k.providers.current()
	if err != nil {
		return nil, err
	}
	for _, p := range plugins {
		entries, err := p.entries(ctx, repository)
		if err != nil {
			return nil, fmt.Errorf("credential provider %s: %w", p.config.Name, err)
		}
		_ = all.add(entries) //nolint:errcheck // What is wrong was said when the plugin answered.
	}
	return &all, nil
}
