package embedded

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/mpool-go/mpool/quota"
)

const (
	version      = 1
	headerSize   = 6
	changeHeader = 6

	flagExternal = 1

	// maxChanges bounds the changes of one record: those of the largest subtree, and
	// an owner.
	maxChanges = quota.MaxSubtree + 16
)

// The types of changes on media.
const (
	typeClass     = 1
	typeDropClass = 2
	typeOwner     = 3
	typeLimit     = 4
	typeDropLimit = 5
	typeClaim     = 6
	typeDropClaim = 7
	typeNextID    = 8
	typeEnded     = 9
)

// nextID and ended are changes that only compactions write.
type (
	nextID struct{ id quota.ID }
	ended  struct {
		id      quota.ID
		request quota.Request
	}
)

// encoder makes one record.
type encoder struct {
	b []byte
	n uint32
}

func (e *encoder) reset() {
	e.b = append(e.b[:0], version, 0, 0, 0, 0, 0)
	e.n = 0
}

// bytes returns the record.
func (e *encoder) bytes() []byte {
	binary.LittleEndian.PutUint32(e.b[2:], e.n)
	return e.b
}

func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) u8(v ...byte) { e.b = append(e.b, v...) }
func (e *encoder) text(s string) {
	e.b = append(append(e.b, byte(len(s))), s...)
}

// add adds a change, one that [quota.Books.Check] has taken: all texts and lists are
// within their bounds. It says whether it knows the type.
func (e *encoder) add(change any) bool {
	at := len(e.b)
	e.u8(0, 0, 0, 0, 0, 0)
	var t byte
	switch c := change.(type) {
	case quota.PutClass:
		t = typeClass
		e.class(&c.Class)
	case quota.DropClass:
		t = typeDropClass
		e.text(c.Name)
	case quota.PutOwner:
		t = typeOwner
		e.text(c.Owner.Name)
		e.text(c.Owner.Parent)
	case quota.PutLimit:
		t = typeLimit
		e.u64(uint64(c.Limit.Limit))
		e.text(c.Limit.Owner)
		e.text(c.Limit.Class)
	case quota.DropLimit:
		t = typeDropLimit
		e.text(c.Owner)
		e.text(c.Class)
	case quota.PutClaim:
		t = typeClaim
		e.claim(c.Claim)
	case quota.DropClaim:
		t = typeDropClaim
		e.request(c.ID, c.Request)
	case nextID:
		t = typeNextID
		e.u64(uint64(c.id))
	case ended:
		t = typeEnded
		e.request(c.id, c.request)
	default:
		e.b = e.b[:at]
		return false
	}
	e.b[at] = t
	binary.LittleEndian.PutUint32(e.b[at+2:], uint32(len(e.b)-at-changeHeader))
	e.n++
	return true
}

func (e *encoder) class(c *quota.Class) {
	flags := byte(0)
	if c.External {
		flags = flagExternal
	}
	e.u8(byte(c.Unit), flags)
	for _, v := range []int64{int64(c.Total), int64(c.Default), c.Min, int64(c.Max), c.Step} {
		e.u64(uint64(v))
	}
	e.text(c.Name)
}

func (e *encoder) claim(c *quota.Claim) {
	expires := int64(0)
	if c.State == quota.Reserved {
		expires = c.Expires.UnixMilli()
	}
	e.u64(uint64(c.ID))
	e.u64(uint64(c.Parent))
	e.u64(uint64(expires))
	e.u8(byte(c.State), byte(len(c.Amounts)), byte(len(c.Requests)), 0)
	e.text(c.Owner)
	e.text(c.Real)
	for _, a := range c.Amounts {
		e.u64(uint64(a.N))
		e.text(a.Class)
	}
	for _, r := range c.Requests {
		e.u64(r.Sum)
		e.text(r.ID)
	}
}

func (e *encoder) request(id quota.ID, r quota.Request) {
	e.u64(uint64(id))
	e.u64(r.Sum)
	e.text(r.ID)
}

// decoder reads with one bounds check at a time; after the first failure all is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) text() string {
	p := d.take(int(d.u8()))
	d.bad = d.bad || !utf8.Valid(p)
	return string(p)
}

func (d *decoder) zero() { d.bad = d.bad || d.u8() != 0 }

// decode calls f with each change of a record, in order.
func decode(record []byte, f func(change any) error) error {
	if len(record) < headerSize || record[0] != version || record[1] != 0 {
		return fmt.Errorf("a quota record of %d bytes is not one of version %d", len(record), version)
	}
	n := binary.LittleEndian.Uint32(record[2:])
	if n > maxChanges {
		return fmt.Errorf("a quota record of %d changes: at most %d", n, maxChanges)
	}
	rest := record[headerSize:]
	for i := range n {
		if len(rest) < changeHeader || rest[1] != 0 {
			return fmt.Errorf("change %d of %d of a quota record: a broken header", i, n)
		}
		size := binary.LittleEndian.Uint32(rest[2:])
		if uint64(size) > uint64(len(rest)-changeHeader) {
			return fmt.Errorf("change %d of %d of a quota record: %d bytes of %d", i, n, size, len(rest)-changeHeader)
		}
		d := decoder{b: rest[changeHeader : changeHeader+int(size)]}
		change := d.change(rest[0])
		if change == nil || d.bad || len(d.b) > 0 {
			return fmt.Errorf("change %d of %d of a quota record, type %d: not what it should be", i, n, rest[0])
		}
		if err := f(change); err != nil {
			return err
		}
		rest = rest[changeHeader+int(size):]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes behind the %d changes of a quota record", len(rest), n)
	}
	return nil
}

// change decodes a body; nil for an unknown type.
func (d *decoder) change(t byte) any {
	switch t {
	case typeClass:
		return d.class()
	case typeDropClass:
		return quota.DropClass{Name: d.text()}
	case typeOwner:
		return quota.PutOwner{Owner: quota.Owner{Name: d.text(), Parent: d.text()}}
	case typeLimit:
		return quota.PutLimit{Limit: quota.OwnerLimit{Limit: quota.Limit(d.u64()), Owner: d.text(), Class: d.text()}}
	case typeDropLimit:
		return quota.DropLimit{Owner: d.text(), Class: d.text()}
	case typeClaim:
		return quota.PutClaim{Claim: d.claim()}
	case typeDropClaim:
		return quota.DropClaim{ID: quota.ID(d.u64()), Request: d.request()}
	case typeNextID:
		return nextID{quota.ID(d.u64())}
	case typeEnded:
		return ended{quota.ID(d.u64()), d.request()}
	}
	return nil
}

func (d *decoder) class() quota.PutClass {
	var c quota.Class
	c.Unit = quota.Unit(d.u8())
	flags := d.u8()
	d.bad = d.bad || flags&^flagExternal != 0
	c.External = flags&flagExternal != 0
	c.Total, c.Default = quota.Limit(d.u64()), quota.Limit(d.u64())
	c.Min, c.Max, c.Step = int64(d.u64()), quota.Limit(d.u64()), int64(d.u64())
	c.Name = d.text()
	return quota.PutClass{Class: c}
}

func (d *decoder) request() quota.Request {
	sum := d.u64()
	return quota.Request{Sum: sum, ID: d.text()}
}

func (d *decoder) claim() *quota.Claim {
	c := &quota.Claim{ID: quota.ID(d.u64()), Parent: quota.ID(d.u64())}
	expires := int64(d.u64())
	c.State = quota.State(d.u8())
	amounts, requests := int(d.u8()), int(d.u8())
	d.zero()
	c.Owner, c.Real = d.text(), d.text()
	if amounts > quota.MaxAmounts || requests > quota.MaxRequests {
		d.bad = true
		return c
	}
	if c.State == quota.Reserved {
		c.Expires = time.UnixMilli(expires).UTC()
	} else if expires != 0 {
		d.bad = true
	}
	for range amounts {
		a := quota.Amount{N: int64(d.u64())}
		a.Class = d.text()
		d.bad = d.bad || len(c.Amounts) > 0 && a.Class <= c.Amounts[len(c.Amounts)-1].Class
		c.Amounts = append(c.Amounts, a)
	}
	for range requests {
		c.Requests = append(c.Requests, d.request())
	}
	return c
}
