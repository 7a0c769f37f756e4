package credentials

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	kubeletconfig "k8s.io/kubelet/config/v1"
	providerapi "k8s.io/kubelet/pkg/apis/credentialprovider/v1"

	"github.com/cri-proxy/cri-proxy/internal/flight"
)

// plugin is one credential provider, and what it answered.
type plugin struct {
	config kubeletconfig.CredentialProvider
	path   string
	images []pattern // Those that it is for.
	limits limits
	log    *logrus.Entry

	answers cache
	flights flight.Group[string, []entry]
}

// entries returns what the plugin has for a repository: nothing if it is not for
// that one, or if it fails. The only error is ctx's.
func (p *plugin) entries(ctx context.Context, repository string) ([]entry, error) {
	if !p.isFor(repository) {
		return nil, nil
	}
	if entries, ok := p.cached(repository); ok {
		return entries, nil
	}
	entries, _, err := p.flights.Do(ctx, repository, func(ctx context.Context) ([]entry, error) {
		// An earlier flight may have landed since.
		if entries, ok := p.cached(repository); ok {
			return entries, nil
		}
		return p.ask(ctx, repository), nil
	})
	return entries, err
}

func (p *plugin) isFor(repository string) bool {
	image, err := parsePattern(repository)
	return err == nil && slices.ContainsFunc(p.images, func(match pattern) bool { return match.matches(image) })
}

// allRepositories is the cache's key of an answer for all of them. No repository
// and no registry is called so.
const allRepositories = "<global>"

func (p *plugin) cached(repository string) ([]entry, bool) {
	return p.answers.get(p.limits.now(), repository, registryOf(repository), allRepositories)
}

func registryOf(repository string) string {
	registry, _, _ := strings.Cut(repository, "/")
	return registry
}

// ask runs the plugin and keeps its answer.
func (p *plugin) ask(ctx context.Context, repository string) []entry {
	log := p.log.WithField("image", repository)
	response, err := p.run(ctx, repository)
	if ctx.Err() != nil {
		log.Debug("credential provider was stopped: nobody waits for it any more")
		return nil
	}
	if err != nil {
		log.WithError(err).Warn("credential provider failed: the image is pulled without its credentials")
		return nil
	}
	entries := p.entriesOf(response)
	if err := new(ring).add(entries); err != nil {
		log.WithError(err).Warn("entries of the credential provider's answer are left out")
	}
	p.keep(repository, response, entries)
	return entries
}

func (p *plugin) entriesOf(response *providerapi.CredentialProviderResponse) []entry {
	var entries []entry
	for _, location := range slices.Sorted(maps.Keys(response.Auth)) {
		auth := response.Auth[location]
		entries = append(entries, entry{
			location:   location,
			credential: Credential{Username: auth.Username, Password: auth.Password, Source: p.config.Name},
		})
	}
	return entries
}

// keep keeps an answer for as long as it says, or else the configuration.
func (p *plugin) keep(repository string, response *providerapi.CredentialProviderResponse, entries []entry) {
	duration := response.CacheDuration
	if duration == nil {
		duration = p.config.DefaultCacheDuration
	}
	if duration.Duration <= 0 {
		return
	}
	key := repository
	switch response.CacheKeyType {
	case providerapi.RegistryPluginCacheKeyType:
		key = registryOf(repository)
	case providerapi.GlobalPluginCacheKeyType:
		key = allRepositories
	case providerapi.ImagePluginCacheKeyType:
	}
	now := p.limits.now()
	p.answers.put(now, now.Add(duration.Duration), key, entries)
}
