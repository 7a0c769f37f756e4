package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// MaxBackoff is where the doubling pause between two attempts of a hook ends.
const MaxBackoff = 5 * time.Second

// maxSocketPath is what sun_path of a unix socket address holds beside its final zero byte.
const maxSocketPath = 107

// Duration is a time span that is written as a string with units, such as "5s" or "1m30s". A number without a unit is refused.
type Duration struct{ time.Duration }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	if s := string(text); s == "0" || s == "+0" || s == "-0" {
		return fmt.Errorf("%q has no unit, write it like \"0s\"", s)
	}
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration, write it like \"5s\" or \"1m30s\" (units ms, s, m, h)", text)
	}
	d.Duration = v
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(d.String()), nil
}

// FileMode are permission bits that are written as an octal string such as "0660".
type FileMode os.FileMode

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *FileMode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || v > uint64(os.ModePerm) {
		return fmt.Errorf("%q is not a file mode, write octal digits from \"0000\" to \"0777\"", text)
	}
	*m = FileMode(v)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (m FileMode) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%04o", uint32(m)), nil
}

// SocketPath returns the file path of a unix socket that is written as unix:///x, unix:/x or /x. The path is cleaned, so that
// two ways to write the same one are equal.
func SocketPath(endpoint string) (string, error) {
	if endpoint == "" {
		return "", errors.New("is empty, write a unix socket like \"unix:///run/x.sock\"")
	}
	p := strings.TrimPrefix(endpoint, "unix:")
	if strings.HasPrefix(p, "//") && p != endpoint {
		p = p[2:]
	}
	if !strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("%q is not an absolute unix socket, write it like \"unix:///run/x.sock\"", endpoint)
	}
	if strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("%q holds a zero byte, which no path may", endpoint)
	}
	if strings.HasSuffix(p, "/") {
		return "", fmt.Errorf("%q is a directory, write a unix socket like \"unix:///run/x.sock\"", endpoint)
	}
	p = filepath.Clean(p)
	if len(p) > maxSocketPath {
		return "", fmt.Errorf("the path has %d bytes, a unix socket may have at most %d", len(p), maxSocketPath)
	}
	return p, nil
}
