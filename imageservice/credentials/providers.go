package credentials

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	kubeletconfig "k8s.io/kubelet/config/v1"
	"sigs.k8s.io/yaml"
)

// loadPlugins returns the plugins of a CredentialProviderConfig, in its order.
// Each is there and executable.
func loadPlugins(content []byte, binDir string, l limits, log *logrus.Entry) ([]*plugin, error) {
	providers, err := parseProviders(content)
	if err != nil {
		return nil, err
	}
	var plugins []*plugin
	for _, provider := range providers {
		path, err := exec.LookPath(filepath.Join(binDir, provider.Name))
		if err != nil {
			return nil, fmt.Errorf("credential provider %s: %w", provider.Name, err)
		}
		p := &plugin{config: provider, path: path, limits: l, log: log.WithField("plugin", provider.Name), answers: cache{max: l.cached}}
		for _, image := range provider.MatchImages {
			match, err := parsePattern(image)
			if err != nil {
				return nil, err // parseProviders checked it.
			}
			p.images = append(p.images, match)
		}
		plugins = append(plugins, p)
	}
	return plugins, nil
}

// parseProviders reads a CredentialProviderConfig by the kubelet's rules
// (pkg/credentialprovider/plugin/config.go). Its versions differ only in what is
// refused here.
func parseProviders(content []byte) ([]kubeletconfig.CredentialProvider, error) {
	var config kubeletconfig.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(content, &config); err != nil {
		return nil, fmt.Errorf("not a CredentialProviderConfig: %w", err)
	}
	if config.Kind != "CredentialProviderConfig" {
		return nil, fmt.Errorf("kind is %q, must be CredentialProviderConfig", config.Kind)
	}
	const group = kubeletconfig.GroupName
	if allowed := []string{group + "/v1", group + "/v1beta1", group + "/v1alpha1"}; !slices.Contains(allowed, config.APIVersion) {
		return nil, fmt.Errorf("apiVersion is %q, must be one of %s", config.APIVersion, strings.Join(allowed, ", "))
	}
	if len(config.Providers) == 0 {
		return nil, errors.New("providers is empty, must have at least one")
	}
	names := map[string]bool{}
	for i, provider := range config.Providers {
		if err := checkProvider(provider); err != nil {
			return nil, fmt.Errorf("providers[%d].%w", i, err)
		}
		if names[provider.Name] {
			return nil, fmt.Errorf("providers[%d].name %q is taken by an earlier one", i, provider.Name)
		}
		names[provider.Name] = true
	}
	return config.Providers, nil
}

// checkProvider returns an error that begins with the field that is wrong.
func checkProvider(p kubeletconfig.CredentialProvider) error {
	switch duration := p.DefaultCacheDuration; {
	case p.Name == "" || p.Name == "." || p.Name == ".." || strings.ContainsAny(p.Name, "/ "):
		return fmt.Errorf("name is %q, must be that of a file in the plugins' directory, without slash and space", p.Name)
	case p.APIVersion != apiVersion():
		return fmt.Errorf("apiVersion of %s is %q, must be %s", p.Name, p.APIVersion, apiVersion())
	case len(p.MatchImages) == 0:
		return fmt.Errorf("matchImages of %s is empty, must have at least one pattern", p.Name)
	case duration == nil:
		return fmt.Errorf("defaultCacheDuration of %s is missing, must be a duration; 0s keeps no answer", p.Name)
	case duration.Duration < 0:
		return fmt.Errorf("defaultCacheDuration of %s is %s, must not be negative", p.Name, duration.Duration)
	case p.TokenAttributes != nil:
		return fmt.Errorf("tokenAttributes of %s cannot be served, there are no service account tokens here; remove it", p.Name)
	}
	for _, image := range p.MatchImages {
		if _, err := parsePattern(image); err != nil {
			return fmt.Errorf("matchImages of %s: %w", p.Name, err)
		}
	}
	return nil
}
