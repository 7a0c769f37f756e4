package credentials

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// authFile is the part of a docker config.json that counts here.
type authFile struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredHelpers map[string]string          `json:"credHelpers"`
	CredsStore  string                     `json:"credsStore"`
}

// legacyName is the name of the file that has the auths as its top level. The
// kubelet goes by the name, and not by the content, too.
const legacyName = ".dockercfg"

// parseAuthFile reads an auth file as the kubelet does (pkg/credentialprovider/config.go).
func parseAuthFile(path string, content []byte, log *logrus.Entry) (*ring, error) {
	entries, err := authEntries(filepath.Base(path) == legacyName, content)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].credential.Source = path
	}
	var r ring
	if err := r.add(entries); err != nil {
		log.WithError(err).WithField("file", path).Warn("entries of the auth file are left out")
	}
	return &r, nil
}

// authEntries returns the entries by their location, so that their order does not change from one call to the next.
func authEntries(legacy bool, content []byte) ([]entry, error) {
	var file authFile
	var target any = &file
	if legacy {
		target = &file.Auths
	}
	if err := json.Unmarshal(content, target); err != nil {
		return nil, plain(err)
	}
	const instead = "credential helpers are not run; name a kubelet CredentialProviderConfig in credential_providers instead"
	if len(file.CredHelpers) > 0 {
		return nil, errors.New("credHelpers: " + instead)
	}
	if file.CredsStore != "" {
		return nil, errors.New("credsStore: " + instead)
	}
	var entries []entry
	for _, location := range slices.Sorted(maps.Keys(file.Auths)) {
		c, err := parseAuth(file.Auths[location])
		if err != nil {
			return nil, fmt.Errorf("auths: entry %q: %w", withoutUser(location), err)
		}
		entries = append(entries, entry{location: location, credential: c})
	}
	return entries, nil
}

func parseAuth(content json.RawMessage) (Credential, error) {
	var auth struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	if err := json.Unmarshal(content, &auth); err != nil {
		return Credential{}, plain(err)
	}
	if auth.Auth == "" {
		return Credential{Username: auth.Username, Password: auth.Password}, nil
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(strings.TrimSpace(auth.Auth), "=") {
		encoding = base64.StdEncoding
	}
	decoded, err := encoding.DecodeString(auth.Auth)
	if err != nil {
		return Credential{}, errors.New("auth is not base64")
	}
	username, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return Credential{}, errors.New("auth is not base64 of username:password")
	}
	return Credential{Username: username, Password: password}, nil
}

// plain says what is wrong with JSON without quoting any of it: it may be a secret.
func plain(err error) error {
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if mistyped.Field == "" {
			return errors.New("it must be a JSON object")
		}
		return fmt.Errorf("field %q has the wrong type", mistyped.Field)
	}
	if malformed, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("it is not JSON, from byte %d on", malformed.Offset)
	}
	return errors.New("it is not JSON as expected")
}
