package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func seeds(f *testing.F, values ...any) {
	f.Helper()
	for _, v := range values {
		raw, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte("r"), raw)
	}
	for _, raw := range []string{
		"", "null", "{}", "[]", `{"version":1}`, `{"version":1,"value":null}`, `{"version":2,"value":{}}`, `{"version":"1"}`,
		`{"version":1,"value":{"id":"r"}}{}`, `{"version":1,"VALUE":{"ID":"r","exec":[]}}`,
	} {
		f.Add([]byte("r"), []byte(raw))
	}
}

func FuzzDecodeRecord(f *testing.F) {
	withHTTP, withExec := record("r", Delivered), record("r", Pending)
	withHTTP.Hook = Hook{HTTPGet: &HTTPGet{Port: 1, Headers: []Header{{"A", "b"}}}, Attempts: 2, Name: "h"}
	withHTTP.Finished, withHTTP.Deadline = noon(), &Deadline{Boot: 1, BootID: "b", Wall: noon()}
	withExec.Hook = Hook{Exec: []string{"a", "\u2028<&>"}, Attempts: 1}
	withExec.Accepted = noon().In(time.FixedZone("", -5400))
	seeds(f, envelope[Record]{version, record("r", Running)}, envelope[Record]{version, withHTTP}, envelope[Record]{version, withExec})
	f.Fuzz(func(t *testing.T, key, raw []byte) { encodesToTheSame(t, key, raw, decodeRecord) })
}

func FuzzDecodeContainer(f *testing.F) {
	seeds(f, envelope[Container]{version, Container{ID: "r"}}, envelope[Container]{version, Container{
		ID: "r", Seen: true, Annotations: map[string]string{"a": "b", "": ""}, Stop: &Stop{Accepted: noon(), Asked: -1},
	}})
	f.Fuzz(func(t *testing.T, key, raw []byte) { encodesToTheSame(t, key, raw, decodeContainer) })
}

// encodesToTheSame encodes what was decoded, twice, as a rewrite of it would.
func encodesToTheSame[T any](t *testing.T, key, raw []byte, decode func(key, raw []byte) (T, error)) {
	t.Helper()
	value, err := decode(key, raw)
	if err != nil {
		if !errors.Is(err, ErrUnreadable) {
			t.Fatalf("%q: %v, want %v", raw, err, ErrUnreadable)
		}
		return
	}
	once, err := encode(value)
	if err != nil {
		t.Fatalf("%q cannot be written again: %v", raw, err)
	}
	again, err := decode(key, once)
	if err != nil {
		t.Fatalf("%q, written again as %q, cannot be read: %v", raw, once, err)
	}
	twice, err := encode(again)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%q was written as %q, then as %q (%v)", raw, once, twice, err)
	}
}
