package credentials

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// cache holds a plugin's answers until they expire, and max of them at most.
type cache struct {
	max int

	mu      sync.Mutex
	answers map[string]answer
}

type answer struct {
	entries []entry // Not to be changed.
	expires time.Time
}

// get returns the answer under the first key that has one.
func (c *cache) get(now time.Time, keys ...string) ([]entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.purge(now)
	for _, key := range keys {
		if a, ok := c.answers[key]; ok {
			return a.entries, true
		}
	}
	return nil, false
}

// put adds an answer. If there are too many, the one that expires first goes.
func (c *cache) put(now, expires time.Time, key string, entries []entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[string]answer{}
	}
	c.answers[key] = answer{entries: entries, expires: expires}
	c.purge(now)
	if len(c.answers) > c.max {
		first := slices.MinFunc(slices.Collect(maps.Keys(c.answers)), func(a, b string) int {
			return c.answers[a].expires.Compare(c.answers[b].expires)
		})
		delete(c.answers, first)
	}
}

// purge drops what expired, so that no password stays longer than it is of use.
func (c *cache) purge(now time.Time) {
	maps.DeleteFunc(c.answers, func(_ string, a answer) bool { return now.After(a.expires) })
}
