package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// version is that of the JSON of both kinds of values. What a newer one means is not guessed.
const version = 1

// ErrUnreadable is wrapped by the error about a value of another version, or
// one that is no value at all. It stays in the file as it is.
var ErrUnreadable = errors.New("not a record of this version")

type envelope[T any] struct {
	Version int `json:"version"`
	Value   T   `json:"value"`
}

func encode[T any](value T) ([]byte, error) {
	return json.Marshal(envelope[T]{Version: version, Value: value})
}

func decode[T any](raw []byte) (T, error) {
	var none T
	var head envelope[json.RawMessage]
	if err := json.Unmarshal(raw, &head); err != nil {
		return none, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if head.Version != version {
		return none, fmt.Errorf("%w: it has version %d, this program knows %d", ErrUnreadable, head.Version, version)
	}
	var value T
	if err := json.Unmarshal(head.Value, &value); err != nil {
		return none, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return value, nil
}

// decodeRecord reads the record that stands under key.
func decodeRecord(key, raw []byte) (Record, error) {
	r, err := decode[Record](raw)
	if err != nil {
		return Record{}, err
	}
	if r.ID != string(key) {
		return Record{}, fmt.Errorf("%w: it stands under %q, but is %q", ErrUnreadable, key, r.ID)
	}
	if err := r.check(); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return r, nil
}

// check refuses what could not be found again, or not be delivered.
func (r Record) check() error {
	if r.ID == "" || r.Container == "" {
		return fmt.Errorf("its id is %q, its container %q: it needs both", r.ID, r.Container)
	}
	if !slices.Contains(events(), r.Event) || !r.State.known() {
		return fmt.Errorf("its event is %q, its state %q", r.Event, r.State)
	}
	return r.Hook.check()
}

func (h Hook) check() error {
	actions := 0
	for _, set := range []bool{len(h.Exec) > 0, h.HTTPGet != nil, h.Sleep > 0} {
		if set {
			actions++
		}
	}
	if actions != 1 || h.Attempts < 1 || h.Timeout < 0 || h.Backoff < 0 {
		return fmt.Errorf("it has %d actions, %d attempts, time-out %s and back-off %s",
			actions, h.Attempts, h.Timeout, h.Backoff)
	}
	return nil
}

// decodeContainer reads the container that stands under key.
func decodeContainer(key, raw []byte) (Container, error) {
	c, err := decode[Container](raw)
	if err != nil {
		return Container{}, err
	}
	if c.ID != string(key) {
		return Container{}, fmt.Errorf("%w: it stands under %q, but is container %q", ErrUnreadable, key, c.ID)
	}
	return c, nil
}
