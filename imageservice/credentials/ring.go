package credentials

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// dockerHub is the key under which docker keeps the user of Docker Hub.
const dockerHub = "index.docker.io"

// entry is a credential and where it is for, as its file or plugin spells it.
type entry struct {
	location   string
	credential Credential
}

// ring holds credentials by their keys, as the kubelet's BasicDockerKeyring does
// (pkg/credentialprovider/keyring.go). The zero value is empty.
type ring struct {
	keys        []string // In reverse order.
	patterns    map[string]pattern
	credentials map[string][]Credential
}

// add adds entries behind those that are there. One whose location is no URL is
// left out, and part of the error.
func (r *ring) add(entries []entry) error {
	if r.credentials == nil {
		r.credentials, r.patterns = map[string][]Credential{}, map[string]pattern{}
	}
	var unusable []error
	for _, e := range entries {
		key, err := keyOf(e.location)
		if err != nil {
			unusable = append(unusable, err)
			continue
		}
		if _, known := r.credentials[key]; !known {
			r.keys = append(r.keys, key)
		}
		r.credentials[key] = append(r.credentials[key], e.credential)
		if p, err := parsePattern(key); err == nil {
			r.patterns[key] = p
		}
	}
	slices.Sort(r.keys)
	slices.Reverse(r.keys)
	return errors.Join(unusable...)
}

// lookup returns the credentials for a repository.
func (r *ring) lookup(repository string) []Credential {
	var found []Credential
	if image, err := parsePattern(repository); err == nil {
		for _, key := range r.keys {
			if p, ok := r.patterns[key]; ok && p.matches(image) {
				found = append(found, r.credentials[key]...)
			}
		}
	}
	if len(found) == 0 && onDockerHub(repository) {
		return slices.Clone(r.credentials[dockerHub])
	}
	return found
}

// keyOf returns the key of a location: host, port and path without the scheme
// and the version of the registry's API.
func keyOf(location string) (string, error) {
	if !strings.HasPrefix(location, "https://") && !strings.HasPrefix(location, "http://") {
		location = "https://" + location
	}
	parsed, err := url.Parse(location)
	if err != nil {
		return "", fmt.Errorf("%q is not a registry", withoutUser(location))
	}
	path := parsed.Path
	if strings.HasPrefix(path, "/v2/") || strings.HasPrefix(path, "/v1/") {
		path = path[len("/v1"):]
	}
	if path == "/" {
		path = ""
	}
	return parsed.Host + path, nil
}

// withoutUser makes a location fit for a log: there may be a password in it.
func withoutUser(location string) string {
	return location[strings.LastIndex(location, "@")+1:]
}

// pattern is a registry, whose parts may be globs, and a prefix of paths.
type pattern struct {
	host       []string // Its parts between dots.
	port, path string
}

func parsePattern(key string) (pattern, error) {
	parsed, err := url.Parse("https://" + key)
	if err != nil {
		return pattern{}, fmt.Errorf("%q is not a registry", withoutUser(key))
	}
	host, port, err := net.SplitHostPort(parsed.Host)
	if err != nil {
		host, port = parsed.Host, "" // It has no port.
	}
	return pattern{host: strings.Split(host, "."), port: port, path: parsed.Path}, nil
}

// matches is the kubelet's URLsMatch. The path is a prefix of letters, not of
// parts: quay.io/foo is for quay.io/foobar too.
func (p pattern) matches(image pattern) bool {
	return p.port == image.port && strings.HasPrefix(image.path, p.path) &&
		slices.EqualFunc(p.host, image.host, func(glob, part string) bool {
			matched, err := filepath.Match(glob, part)
			return err == nil && matched
		})
}

// onDockerHub is the kubelet's isDefaultRegistryMatch. A registry without dot and
// port, as localhost, is taken for a user of Docker Hub there, and so it is here.
func onDockerHub(repository string) bool {
	registry, _, qualified := strings.Cut(repository, "/")
	switch {
	case registry == "":
		return false
	case !qualified, registry == "docker.io", registry == dockerHub:
		return true
	default:
		return !strings.ContainsAny(registry, ".:")
	}
}
