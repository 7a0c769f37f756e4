package fakeruntime

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// index holds objects sorted by id and finds them by any unique prefix, as containerd does.
type index[T any] struct {
	entries []entry[T]
}

type entry[T any] struct {
	id   string
	item T
}

func (x *index[T]) search(id string) (int, bool) {
	return slices.BinarySearchFunc(x.entries, id, func(e entry[T], id string) int { return cmp.Compare(e.id, id) })
}

// get resolves a full id or a unique prefix. The errors are containerd's.
func (x *index[T]) get(id string) (T, error) {
	var none T
	if id == "" {
		return none, errors.New("prefix can't be empty")
	}
	at, exact := x.search(id)
	switch {
	case exact:
		return x.entries[at].item, nil
	case !x.hasPrefix(at, id):
		return none, errNotFound
	case x.hasPrefix(at+1, id):
		return none, fmt.Errorf("Multiple IDs found with provided prefix: %s", id) //nolint:staticcheck // The text is containerd's.
	default:
		return x.entries[at].item, nil
	}
}

func (x *index[T]) hasPrefix(at int, prefix string) bool {
	return at < len(x.entries) && strings.HasPrefix(x.entries[at].id, prefix)
}

// resolve makes the id of a list filter full. One that is not known, or ambiguous, stays as it is and matches nothing.
func (x *index[T]) resolve(id string) string {
	at, exact := x.search(id)
	if id == "" || exact || !x.hasPrefix(at, id) || x.hasPrefix(at+1, id) {
		return id
	}
	return x.entries[at].id
}

func (x *index[T]) put(id string, item T) {
	at, exact := x.search(id)
	if exact {
		x.entries[at].item = item
		return
	}
	x.entries = slices.Insert(x.entries, at, entry[T]{id: id, item: item})
}

func (x *index[T]) remove(id string) {
	if at, exact := x.search(id); exact {
		x.entries = slices.Delete(x.entries, at, at+1)
	}
}

// all yields the objects in the order of their ids.
func (x *index[T]) all(yield func(T) bool) {
	for _, e := range x.entries {
		if !yield(e.item) {
			return
		}
	}
}
