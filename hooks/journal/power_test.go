package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A power failure may leave any of the pages of a commit that is not flushed,
// and a part of the page that ends it.
func TestPowerFailureInACommit(t *testing.T) {
	t.Parallel()
	c := &clock{}
	o := storeOptions(t.TempDir())
	j := New(openStore(t, o), c.now)
	var before, after []byte
	for n := range 8 * lifeSteps {
		c.at = lifeTime(n)
		wantBefore := dump(t, j)
		before = readFile(t, j.store.Path())
		if err := liveOn(j, n); err != nil {
			t.Fatal(err)
		}
		wantAfter := dump(t, j)
		after = readFile(t, j.store.Path())
		if n < 6*lifeSteps { // Let it come to an age first.
			continue
		}
		for name, image := range images(t, before, after) {
			want := wantBefore
			if name == "all" {
				want = wantAfter
			}
			copied := storeOptions(t.TempDir())
			if err := os.WriteFile(filepath.Join(copied.Dir, filepath.Base(j.store.Path())), image, 0o600); err != nil {
				t.Fatal(err)
			}
			crashed := reopen(t, copied, c)
			compareWith(t, crashed, want, fmt.Sprintf("Update %d, %s written", n, name))
			closeStore(t, crashed.store)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// images are the files that a crash can leave between before and after: "all",
// and others in which the commit did not end.
func images(t *testing.T, before, after []byte) map[string][]byte {
	t.Helper()
	size, all := os.Getpagesize(), map[string][]byte{"all": after}
	grown := make([]byte, len(after))
	copy(grown, before)
	data, meta := []int{}, -1
	for at := 0; at < len(after); at += size {
		switch isMeta := at < 2*size; {
		case string(grown[at:at+size]) == string(after[at:at+size]):
		case isMeta && meta >= 0:
			t.Fatal("a commit wrote both metas")
		case isMeta:
			meta = at
		default:
			data = append(data, at)
		}
	}
	if meta < 0 || len(data) < 2 {
		t.Fatalf("a commit wrote a meta at %d and %d other pages", meta, len(data))
	}
	add := func(name string, pages ...int) []byte {
		image := append([]byte(nil), grown...)
		for _, at := range pages {
			copy(image[at:at+size], after[at:at+size])
		}
		all[name] = image
		return image
	}
	add("nothing")
	for i := range data {
		add(fmt.Sprintf("%d pages from the front", i+1), data[:i+1]...)
		add(fmt.Sprintf("%d pages from the back", i+1), data[len(data)-1-i:]...)
		half := add(fmt.Sprintf("half of page %d", i+1))
		copy(half[data[i]:data[i]+size/2], after[data[i]:])
	}
	const metaEnd = 16 + 64 // A page header and the meta, which ends with its checksum.
	for cut := 24; cut < metaEnd; cut += 8 {
		torn := add(fmt.Sprintf("all but the end of the meta from byte %d", cut), data...)
		copy(torn[meta:meta+cut], after[meta:])
	}
	return all
}
