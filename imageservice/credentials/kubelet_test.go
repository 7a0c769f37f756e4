package credentials

import (
	"net"
	"net/url"
	"path/filepath"
	"sort"
	"strings"
)

// What follows is the kubelet's own keyring, from pkg/credentialprovider/keyring.go
// of Kubernetes 1.36.3, Copyright 2014 The Kubernetes Authors, under the Apache
// License 2.0; without its logging, its tracking of sources and its sets. Ours is
// compared with it. It is not to be improved.

type kubeletKeyring struct {
	index []string
	creds map[string][]Credential
}

func (dk *kubeletKeyring) add(loc string, creds Credential) {
	if dk.creds == nil {
		dk.creds = map[string][]Credential{}
	}
	value := loc
	if !strings.HasPrefix(value, "https://") && !strings.HasPrefix(value, "http://") {
		value = "https://" + value
	}
	parsed, err := url.Parse(value)
	if err != nil {
		return
	}
	effectivePath := parsed.Path
	if strings.HasPrefix(effectivePath, "/v2/") || strings.HasPrefix(effectivePath, "/v1/") {
		effectivePath = effectivePath[3:]
	}
	var key string
	if (len(effectivePath) > 0) && (effectivePath != "/") {
		key = parsed.Host + effectivePath
	} else {
		key = parsed.Host
	}
	if _, ok := dk.creds[key]; !ok {
		dk.index = append(dk.index, key)
	}
	dk.creds[key] = append(dk.creds[key], creds)
	sort.Sort(sort.Reverse(sort.StringSlice(dk.index)))
}

func (dk *kubeletKeyring) lookup(image string) []Credential {
	var ret []Credential
	for _, k := range dk.index {
		if matched, err := kubeletURLsMatchStr(k, image); err == nil && matched {
			ret = append(ret, dk.creds[k]...)
		}
	}
	if len(ret) > 0 {
		return ret
	}
	if kubeletIsDefaultRegistryMatch(image) {
		if auth, ok := dk.creds["index.docker.io"]; ok {
			return auth
		}
	}
	return nil
}

func kubeletIsDefaultRegistryMatch(image string) bool {
	parts := strings.SplitN(image, "/", 2)
	if len(parts[0]) == 0 {
		return false
	}
	if len(parts) == 1 {
		return true
	}
	if parts[0] == "docker.io" || parts[0] == "index.docker.io" {
		return true
	}
	return !strings.ContainsAny(parts[0], ".:")
}

func kubeletParseSchemelessURL(schemelessURL string) (*url.URL, error) {
	parsed, err := url.Parse("https://" + schemelessURL)
	if err != nil {
		return nil, err
	}
	parsed.Scheme = ""
	return parsed, nil
}

func kubeletSplitURL(url *url.URL) (parts []string, port string) {
	host, port, err := net.SplitHostPort(url.Host)
	if err != nil {
		host, port = url.Host, ""
	}
	return strings.Split(host, "."), port
}

func kubeletURLsMatchStr(glob, target string) (bool, error) {
	globURL, err := kubeletParseSchemelessURL(glob)
	if err != nil {
		return false, err
	}
	targetURL, err := kubeletParseSchemelessURL(target)
	if err != nil {
		return false, err
	}
	return kubeletURLsMatch(globURL, targetURL)
}

func kubeletURLsMatch(globURL, targetURL *url.URL) (bool, error) {
	globURLParts, globPort := kubeletSplitURL(globURL)
	targetURLParts, targetPort := kubeletSplitURL(targetURL)
	if globPort != targetPort {
		return false, nil
	}
	if len(globURLParts) != len(targetURLParts) {
		return false, nil
	}
	if !strings.HasPrefix(targetURL.Path, globURL.Path) {
		return false, nil
	}
	for k, globURLPart := range globURLParts {
		targetURLPart := targetURLParts[k]
		matched, err := filepath.Match(globURLPart, targetURLPart)
		if err != nil {
			return false, err
		}
		if !matched {
			return false, nil
		}
	}
	return true, nil
}
