package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"
	bolt "go.etcd.io/bbolt"
)

// soundFile is a file with everything that the format has: branch pages,
// overflow pages, nested and inline buckets, and a freelist.
func soundFile(tb testing.TB) []byte {
	tb.Helper()
	o := options(tb.TempDir())
	s, err := Open(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	fill := func(tx *bolt.Tx) error {
		var errs []error
		for _, name := range []string{"big", "nested"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			child, err := b.CreateBucket([]byte("inline"))
			if err != nil {
				return err
			}
			errs = append(errs, child.Put([]byte("k"), []byte("v")), b.Put([]byte("huge"), make([]byte, 9000)))
			for i := range 300 {
				errs = append(errs, b.Put(fmt.Appendf(nil, "key-%04d", i), make([]byte, 60)))
			}
		}
		return errors.Join(errs...)
	}
	shrink := func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket([]byte("big")).Delete([]byte("huge")), tx.Bucket([]byte("nested")).DeleteBucket([]byte("inline")))
	}
	if err := errors.Join(s.Update(fill), s.Update(shrink), s.Close()); err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile(s.Path())
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestDamagedFileIsSetAside(t *testing.T) {
	t.Parallel()
	sound := soundFile(t)
	if err := verify(bytes.NewReader(sound), int64(len(sound))); err != nil {
		t.Fatalf("the sound file: %v", err)
	}
	random := make([]byte, 50_000)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{1}), random); err != nil {
		t.Fatal(err)
	}
	m, err := readMeta(bytes.NewReader(sound), int64(len(sound)))
	if err != nil {
		t.Fatal(err)
	}
	size := int(m.pageSize)
	root, free := int(m.root)*size, int(m.freelist)*size
	tests := map[string][]byte{
		"one byte":           sound[:1],
		"text":               []byte("this is not a database\n"),
		"cut in the meta":    sound[:40],
		"cut after a meta":   sound[:size],
		"cut after metas":    sound[:2*size],
		"cut in the middle":  sound[:len(sound)/2],
		"all zero":           make([]byte, len(sound)),
		"random":             random,
		"metas zero":         patch(sound, 0, make([]byte, 2*size)),
		"root page zero":     patch(sound, root, make([]byte, size)),
		"root page random":   patch(sound, root, random[:size]),
		"root calls itself":  patch(sound, root, sound[free:free+8]),
		"freelist page zero": patch(sound, free, make([]byte, size)),
		"root page is free":  patch(sound, free+pageHeaderSize, patch(make([]byte, 8), 0, sound[root:root+8])),
		"pages swapped":      patch(patch(sound, root, sound[free:free+size]), free, sound[root:root+size]),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSetAside(t, content)
		})
	}
}

func testSetAside(t *testing.T, content []byte) {
	t.Helper()
	o := options(t.TempDir())
	logger, logged := logrustest.NewNullLogger()
	o.Log = logrus.NewEntry(logger)
	if err := os.WriteFile(filepath.Join(o.Dir, fileName), content, 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, o)
	kept, err := os.ReadFile(s.ResetFrom())
	if err != nil || !bytes.Equal(kept, content) {
		t.Fatalf("kept %d bytes of %d as %q: %v", len(kept), len(content), s.ResetFrom(), err)
	}
	if e := logged.LastEntry(); e == nil || e.Level != logrus.ErrorLevel || e.Data["kept_as"] != s.ResetFrom() {
		t.Errorf("logged %v, want an error with the new name", e)
	}
	if err := SandboxHandlers(s).Put("a/0", "runc"); err != nil {
		t.Errorf("Put into the fresh file: %v", err)
	}
}

// One of the two metas may be lost: bbolt goes on with the other.
func TestOneMetaIsEnough(t *testing.T) {
	t.Parallel()
	sound := soundFile(t)
	for _, at := range []int{0, os.Getpagesize()} {
		data := patch(sound, at, make([]byte, os.Getpagesize()))
		if err := verify(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Errorf("with the meta at %d zeroed: %v", at, err)
		}
		useFile(t, data)
	}
}

// A sound file that verify refused would lose its records, so it has to know
// every shape that bbolt writes.
func TestVerifyAcceptsWhatBboltWrites(t *testing.T) {
	t.Parallel()
	s, random := open(t, options(t.TempDir())), rand.New(rand.NewPCG(3, 4))
	s.db.NoSync = true
	for i := range 300 {
		if err := s.Update(func(tx *bolt.Tx) error { return randomWrites(tx, random, 1+i%80) }); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(s.Path())
		if err == nil {
			err = verify(bytes.NewReader(data), int64(len(data)))
		}
		if err != nil {
			t.Fatalf("after commit %d: %v", i, err)
		}
	}
}

// randomWrites changes entries of nested buckets, up to several pages long, and
// now and then a whole bucket.
func randomWrites(tx *bolt.Tx, random *rand.Rand, writes int) error {
	for range writes {
		outer, err := tx.CreateBucketIfNotExists([]byte{'a' + byte(random.IntN(3))})
		if err != nil {
			return err
		}
		name := []byte{'n', byte(random.IntN(4))}
		if random.IntN(300) == 0 && outer.Bucket(name) != nil {
			if err := outer.DeleteBucket(name); err != nil {
				return err
			}
		}
		inner, err := outer.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		b := [...]*bolt.Bucket{outer, inner}[random.IntN(2)]
		key := fmt.Appendf(nil, "key-%03d", random.IntN(200))
		if random.IntN(5) < 2 {
			err = b.Delete(key)
		} else {
			err = b.Put(key, make([]byte, random.IntN(200)*random.IntN(60)/(1+random.IntN(20))))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Whatever verify lets through has to be safe in bbolt's hands: a fault there
// would end this test binary.
func TestRandomDamageNeverCrashes(t *testing.T) {
	t.Parallel()
	sound, random := soundFile(t), rand.New(rand.NewPCG(1, 2))
	for range 150 {
		data := bytes.Clone(sound)
		for range 1 + random.IntN(3) {
			// Headers and pointers are at the start of a page: aim there.
			at := random.IntN(len(data)/512) * 512
			at += random.IntN(64)
			data[at] ^= byte(1 + random.IntN(255))
		}
		useFile(t, data)
	}
}

func FuzzOpen(f *testing.F) {
	sound := soundFile(f)
	f.Add(uint32(0), []byte{0}, uint32(len(sound)))
	f.Add(uint32(3*4096), []byte("\x03\x00\x00\x00\x00\x00\x00\x00\x01"), uint32(len(sound)))
	f.Add(uint32(5*4096+16), bytes.Repeat([]byte{0xff}, 16), uint32(len(sound)-4096))
	f.Fuzz(func(t *testing.T, at uint32, change []byte, size uint32) {
		data := patch(sound, int(at)%len(sound), change)
		useFile(t, data[:min(int(size), len(data))])
	})
}

// useFile opens a file, reads all of it, and writes to it.
func useFile(t *testing.T, content []byte) {
	t.Helper()
	o := options(t.TempDir())
	if err := os.WriteFile(filepath.Join(o.Dir, fileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.db.NoSync = true // this is not about the disk
	h := SandboxHandlers(s)
	err = errors.Join(s.View(readAll), s.Update(deleteAll), h.Put("a/0", "runc"), h.Delete("a/0"), s.View(readAll), s.Close())
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(tx *bolt.Tx) error {
	return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return readBucket(b) })
}

func readBucket(b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return readBucket(b.Bucket(k))
		}
		if bytes.Contains(v, []byte("no value has this")) {
			return fmt.Errorf("read %q", v)
		}
		return nil
	})
}

// deleteAll deletes one bucket entry by entry and the rest as a whole.
func deleteAll(tx *bolt.Tx) error {
	var names [][]byte
	err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		names = append(names, bytes.Clone(name))
		return nil
	})
	for i, name := range names {
		if i == 0 {
			err = errors.Join(err, emptyBucket(tx.Bucket(name)))
			continue
		}
		err = errors.Join(err, tx.DeleteBucket(name))
	}
	return err
}

func emptyBucket(b *bolt.Bucket) error {
	var keys [][]byte
	err := b.ForEach(func(k, v []byte) error {
		if v != nil {
			keys = append(keys, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// patch returns data with change written over it at an offset.
func patch(data []byte, at int, change []byte) []byte {
	out := bytes.Clone(data)
	copy(out[at:], change)
	return out
}
