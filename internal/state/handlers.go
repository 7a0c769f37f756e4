package state

import (
	bolt "go.etcd.io/bbolt"
)

// Handlers is the durable map from a sandbox to its handler's name. Keys are
// "namespace/name/uid/attempt" of the pod. It is the zero-cost view of a Store that
// SandboxHandlers returns, safe for concurrent use.
type Handlers struct {
	store *Store
}

// SandboxHandlers returns the map of sandboxes to handlers in s.
func SandboxHandlers(s *Store) Handlers { return Handlers{store: s} }

func handlersBucket() []byte { return []byte("sandbox-handlers") }

// Put remembers the handler of a sandbox. It is on disk when Put returns nil. A
// pair that is already there costs no write.
func (h Handlers) Put(key, handler string) error {
	return h.PutAll(map[string]string{key: handler})
}

// PutAll remembers the handlers of sandboxes, all of them in one commit, as Put does.
func (h Handlers) PutAll(pairs map[string]string) error {
	known, err := h.has(pairs)
	if err != nil || known {
		return err
	}
	return h.store.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(handlersBucket())
		if err != nil {
			return err
		}
		for key, handler := range pairs {
			if err := b.Put([]byte(key), []byte(handler)); err != nil {
				return err
			}
		}
		return nil
	})
}

// has reports whether all of the pairs are there.
func (h Handlers) has(pairs map[string]string) (known bool, err error) {
	err = h.store.View(func(tx *bolt.Tx) error {
		known = true
		b := tx.Bucket(handlersBucket())
		for key, handler := range pairs {
			var v []byte
			if b != nil {
				v = b.Get([]byte(key))
			}
			known = known && v != nil && string(v) == handler
		}
		return nil
	})
	return known, err
}

// Delete forgets sandboxes, all of them in one commit. Keys that are not there
// are ignored, and if none is there nothing is written.
func (h Handlers) Delete(keys ...string) error {
	all, err := h.All()
	if err != nil {
		return err
	}
	known := keys[:0:0]
	for _, key := range keys {
		if _, ok := all[key]; ok {
			known = append(known, key)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return h.store.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(handlersBucket())
		for _, key := range known {
			if err := b.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// All returns a copy of the map.
func (h Handlers) All() (map[string]string, error) {
	all := map[string]string{}
	err := h.store.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(handlersBucket())
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all[string(k)] = string(v)
			return nil
		})
	})
	return all, err
}
