package state

import (
	"encoding/binary"
	"hash/fnv"
)

// The numbers of bbolt's file format, version 2. bbolt writes all integers in
// the byte order of the machine.
const (
	pageHeaderSize   = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementSize      = 16 // of a branch page and of a leaf page alike
	bucketHeaderSize = 16 // root uint64, sequence uint64
	metaSize         = 64
	metaSummedSize   = 56 // the checksum covers what stands before it

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketElement = 0x01 // the flag of a leaf element whose value is a bucket

	// countInFirstID says that a freelist is too long for the header's count.
	countInFirstID = 0xFFFF
)

// meta is one of the two roots of the file.
type meta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	pages    uint64 // the high water mark: all page ids are below it
	txid     uint64
}

// parseMeta reads the meta in a page; ok says whether bbolt would accept it.
func parseMeta(page []byte) (m meta, ok bool) {
	if len(page) < pageHeaderSize+metaSize {
		return meta{}, false
	}
	b := page[pageHeaderSize:]
	sum := fnv.New64a()
	sum.Write(b[:metaSummedSize])
	if u32(b) != metaMagic || u32(b[4:]) != metaVersion || u64(b[metaSummedSize:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		pageSize: u32(b[8:]),
		root:     u64(b[16:]),
		freelist: u64(b[32:]),
		pages:    u64(b[40:]),
		txid:     u64(b[48:]),
	}, true
}

// page is one page with its overflow, or the page inside an inline bucket.
type page []byte

func (p page) id() uint64       { return u64(p) }
func (p page) flags() uint16    { return binary.NativeEndian.Uint16(p[8:]) }
func (p page) count() int       { return int(binary.NativeEndian.Uint16(p[10:])) }
func (p page) overflow() uint64 { return uint64(u32(p[12:])) }

// element is one entry of a branch or leaf page.
type element struct {
	flags uint32 // of a leaf element
	child uint64 // of a branch element
	key   []byte
	value []byte
}

// element reads entry i; ok is false when it reaches out of the page.
func (p page) element(i int) (e element, ok bool) {
	at := pageHeaderSize + i*elementSize
	head := p[at:]
	var pos, keySize, valueSize uint32
	if p.flags() == leafPage {
		e.flags, pos, keySize, valueSize = u32(head), u32(head[4:]), u32(head[8:]), u32(head[12:])
	} else {
		pos, keySize, e.child = u32(head), u32(head[4:]), u64(head[8:])
	}
	start := uint64(at) + uint64(pos)
	mid := start + uint64(keySize)
	end := mid + uint64(valueSize)
	first := uint64(pageHeaderSize + p.count()*elementSize)
	if start < first || end > uint64(len(p)) || keySize == 0 {
		return element{}, false
	}
	e.key, e.value = p[start:mid], p[mid:end]
	return e, true
}

// elementsFit says whether the header's count of entries has room in the page.
func (p page) elementsFit() bool {
	return pageHeaderSize+p.count()*elementSize <= len(p)
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
