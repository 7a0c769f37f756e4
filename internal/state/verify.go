package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxDepth bounds the way from the root to a leaf, through nested buckets. A
// real tree of this size of file is less than ten pages deep.
const maxDepth = 64

// damage is a reason for which bbolt must not be given the file.
type damage string

func (d damage) Error() string { return string(d) }

func damagef(format string, args ...any) error { return damage(fmt.Sprintf(format, args...)) }

// verify reads every page that bbolt could follow, each at most once, and
// returns a damage when one of them makes no sense, or the error of the read.
// bbolt's own Tx.Check cannot do this: it works on the mapped file, so a bad
// page id is a fault that ends the process, and a loop is a full stack.
func verify(r io.ReaderAt, size int64) error {
	m, err := readMeta(r, size)
	if err != nil {
		return err
	}
	v := &verifier{r: r, pageSize: uint64(m.pageSize), claimed: make([]bool, m.pages)}
	v.claimed[0], v.claimed[1] = true, true // the two metas
	if err := v.bucket(m.root, 0); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return v.freelist(m.freelist)
}

// readMeta finds the newest valid meta as bbolt does: the first page tells the
// page size, and if it is damaged the second is looked for at every page size.
func readMeta(r io.ReaderAt, size int64) (meta, error) {
	first, ok, err := metaAt(r, 0)
	for at := int64(1024); err == nil && !ok && at <= 1024<<14; at *= 2 {
		first, ok, err = metaAt(r, at)
	}
	if err != nil {
		return meta{}, err
	}
	if !ok {
		return meta{}, damage("no valid meta page")
	}
	newest := first
	for _, at := range []int64{0, int64(first.pageSize)} {
		m, ok, err := metaAt(r, at)
		if err != nil {
			return meta{}, err
		}
		if ok && m.txid > newest.txid {
			newest = m
		}
	}
	return newest, newest.check(size)
}

func metaAt(r io.ReaderAt, at int64) (meta, bool, error) {
	buf := make([]byte, pageHeaderSize+metaSize)
	n, err := r.ReadAt(buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return meta{}, false, fmt.Errorf("read the meta page at %d: %w", at, err)
	}
	m, ok := parseMeta(buf[:n])
	return m, ok, nil
}

func (m meta) check(size int64) error {
	ps := uint64(m.pageSize)
	if ps < 1024 || ps > 1024<<14 || ps&(ps-1) != 0 {
		return damagef("page size %d", ps)
	}
	if m.pages < 3 || m.pages > uint64(size)/ps {
		return damagef("%d pages of %d bytes in a file of %d bytes", m.pages, ps, size)
	}
	return nil
}

// verifier walks one file.
type verifier struct {
	r        io.ReaderAt
	pageSize uint64
	claimed  []bool // by page id: it is part of the tree or the freelist, or free
}

// claim marks count pages from id on. No page has two uses, which also makes
// the walk finite.
func (v *verifier) claim(id, count uint64) error {
	if total := uint64(len(v.claimed)); id >= total || count > total-id {
		return damagef("page %d is outside of the file", id)
	}
	for i := id; i < id+count; i++ {
		if v.claimed[i] {
			return damagef("page %d is used twice", i)
		}
		v.claimed[i] = true
	}
	return nil
}

// load reads page id with its overflow.
func (v *verifier) load(id uint64) (page, error) {
	if err := v.claim(id, 1); err != nil {
		return nil, err
	}
	p := make(page, v.pageSize)
	if err := v.read(p, id); err != nil {
		return nil, err
	}
	if p.id() != id {
		return nil, damagef("page %d calls itself %d", id, p.id())
	}
	if p.overflow() == 0 {
		return p, nil
	}
	if err := v.claim(id+1, p.overflow()); err != nil {
		return nil, err
	}
	p = make(page, v.pageSize*(1+p.overflow()))
	return p, v.read(p, id)
}

func (v *verifier) read(p page, id uint64) error {
	_, err := v.r.ReadAt(p, int64(id*v.pageSize))
	if errors.Is(err, io.EOF) {
		return damagef("page %d is cut off", id)
	}
	if err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	return nil
}

// bucket verifies the tree of one bucket.
func (v *verifier) bucket(root uint64, depth int) error {
	var order keyOrder
	if err := v.tree(root, &order, depth); err != nil {
		return err
	}
	if order.isBound {
		return damagef("page %d: the last page below it is empty", root)
	}
	return nil
}

func (v *verifier) tree(id uint64, order *keyOrder, depth int) error {
	if depth > maxDepth {
		return damagef("page %d is more than %d levels deep", id, maxDepth)
	}
	p, err := v.load(id)
	if err != nil {
		return err
	}
	return v.elements(p, order, depth)
}

// elements verifies the entries of a page and what they point to.
func (v *verifier) elements(p page, order *keyOrder, depth int) error {
	isLeaf := p.flags() == leafPage
	// bbolt never writes a branch with one child, and panics when it meets one.
	if !isLeaf && (p.flags() != branchPage || p.count() < 2) || !p.elementsFit() {
		return damagef("page %d: flags %#x with %d entries", p.id(), p.flags(), p.count())
	}
	for i := range p.count() {
		e, ok := p.element(i)
		if !ok || !order.next(e.key, isLeaf) {
			return damagef("page %d: entry %d is out of bounds or out of order", p.id(), i)
		}
		if err := v.follow(e, isLeaf, order, depth); err != nil {
			return fmt.Errorf("page %d: entry %d: %w", p.id(), i, err)
		}
	}
	return nil
}

func (v *verifier) follow(e element, isLeaf bool, order *keyOrder, depth int) error {
	switch {
	case !isLeaf:
		return v.tree(e.child, order, depth+1)
	case e.flags == 0:
		return nil
	case e.flags != bucketElement || len(e.value) < bucketHeaderSize:
		return damagef("flags %#x on %d bytes", e.flags, len(e.value))
	}
	if root := u64(e.value); root != 0 {
		return v.bucket(root, depth+1)
	}
	inline := page(e.value[bucketHeaderSize:])
	if len(inline) < pageHeaderSize || inline.flags() != leafPage || depth > maxDepth {
		return damage("an inline bucket without its page")
	}
	return v.elements(inline, &keyOrder{}, depth+1)
}

// freelist verifies that only pages are free that nothing uses: bbolt writes
// over them.
func (v *verifier) freelist(id uint64) error {
	p, err := v.load(id)
	if err != nil {
		return err
	}
	ids, count := p[pageHeaderSize:], uint64(p.count())
	if count == countInFirstID {
		count, ids = u64(ids), ids[8:]
	}
	if p.flags() != freelistPage || count > uint64(len(ids))/8 {
		return damagef("page %d: flags %#x with %d free pages", id, p.flags(), count)
	}
	for i := range count {
		if err := v.claim(u64(ids[8*i:]), 1); err != nil {
			return fmt.Errorf("the freelist: %w", err)
		}
	}
	return nil
}

// keyOrder follows the keys of one bucket from left to right. The key of a
// branch entry has to be the first key of its page: bbolt looks the page up by
// it when it writes, and frees pages twice if it is another one.
type keyOrder struct {
	last    []byte
	isBound bool
}

func (o *keyOrder) next(key []byte, isLeaf bool) bool {
	c := bytes.Compare(key, o.last)
	inOrder := o.last == nil || o.isBound && c == 0 || !o.isBound && c > 0
	o.last, o.isBound = key, !isLeaf
	return inOrder
}
