package rig

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// secret is a password and the user it belongs to.
type secret struct {
	user, password string
	inErrors       bool // of containerd's own
}

// shapes are the ways in which a secret is written, and what each is.
func (s secret) shapes() map[string]string {
	pair := []byte(s.user + ":" + s.password)
	return map[string]string{
		s.password: "password",
		base64.RawStdEncoding.EncodeToString([]byte(s.password)): "password, base64",
		hex.EncodeToString([]byte(s.password)):                   "password, hex",
		base64.RawStdEncoding.EncodeToString(pair):               "auth header",
		base64.RawURLEncoding.EncodeToString(pair):               "auth header",
	}
}

// Leaks says where a secret of the rig is seen: in the log of any program, in
// what a proxy keeps in its folder, state included, and in what its admin socket
// answers now. It also returns how many files it has read.
func (r *Rig) Leaks(ctx context.Context) (found []string, files int, err error) {
	r.mu.Lock()
	proxies, secrets := r.proxies, r.secrets
	own := map[string]bool{}
	for _, containerd := range r.containerd {
		own[containerd.process.log] = true
	}
	r.mu.Unlock()
	paths, err := filepath.Glob(filepath.Join(r.Dir, "*.log"))
	if err != nil {
		return nil, 0, err
	}
	for _, proxy := range proxies {
		if err := proxy.saveAdmin(ctx); err != nil {
			return nil, 0, err
		}
		kept, err := regular(filepath.Dir(proxy.Config))
		if err != nil {
			return nil, 0, err
		}
		paths = append(paths, kept...)
	}
	for _, path := range paths {
		kept := slices.DeleteFunc(slices.Clone(secrets), func(s secret) bool { return s.inErrors && own[path] })
		seen, err := leaksIn(path, kept)
		if err != nil {
			return nil, 0, err
		}
		found = append(found, seen...)
	}
	return found, len(paths), nil
}

func leaksIn(path string, secrets []secret) (found []string, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for _, s := range secrets {
		for text, shape := range s.shapes() {
			if at := bytes.Index(content, []byte(text)); at >= 0 {
				found = append(found, fmt.Sprintf("%s of %s in %s: %q", shape, s.user, path, content[max(0, at-200):min(len(content), at+100)]))
			}
		}
	}
	return found, nil
}

// regular are the files in a folder and below.
func regular(folder string) (found []string, err error) {
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

// saveAdmin writes what the admin socket says into the proxy's folder. Of a
// proxy that does not run nothing is asked.
func (p *Proxy) saveAdmin(ctx context.Context) error {
	if p.process.running == nil {
		return nil
	}
	var all bytes.Buffer
	for _, path := range []string{"/metrics", "/v1/status", "/v1/images"} {
		body, err := p.AdminGet(ctx, path)
		if err != nil {
			return err
		}
		all.Write(body)
	}
	return os.WriteFile(filepath.Join(filepath.Dir(p.Config), "admin"), all.Bytes(), 0o600)
}

// lines are those of a file; none where there is no such file.
func lines(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n"), err
}
