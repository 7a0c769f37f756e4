package credentials

import (
	"encoding/json"
	"fmt"
	"io"
)

// Credential is one user of a registry. Printed or encoded, it does not show its
// password; only code that reads the field has it. Package fmt asks no method
// for the verb %p, which vet refuses, and for what is in an unexported field: do
// not print a struct that has one in such a field.
type Credential struct {
	Username, Password string
	// Source says in logs where it is from: an auth file's path or a plugin's name.
	Source string
}

// String names the user and the source.
func (c Credential) String() string {
	return fmt.Sprintf("user %q of %s", c.Username, c.Source)
}

// GoString is String: Go syntax would show the password.
func (c Credential) GoString() string { return c.String() }

// Format prints String for every verb, those that go by the fields included.
func (c Credential) Format(state fmt.State, _ rune) {
	_, _ = io.WriteString(state, c.String()) //nolint:errcheck // A fmt.State keeps its own error.
}

// MarshalJSON leaves the password out.
func (c Credential) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"username": c.Username, "source": c.Source})
}
