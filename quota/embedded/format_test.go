package embedded

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/mpool-go/mpool/quota"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file anew")

// everything is one of each change.
func everything() []any {
	return []any{
		quota.PutClass{Class: quota.Class{Name: "database.instance", Total: 2000, Default: 25, Min: 1, Max: quota.Unlimited, Step: 1}},
		quota.PutClass{Class: quota.Class{Name: "mpool.bytes.capacity", Unit: quota.Bytes, Total: quota.Unlimited, Default: 0, Min: 1, Max: 9, Step: 3, External: true}},
		quota.DropClass{Name: "old"},
		quota.PutOwner{Owner: quota.Owner{Name: "projects/john", Parent: "projects"}},
		quota.PutLimit{Limit: quota.OwnerLimit{Owner: "john", Class: "storage", Limit: quota.Unlimited}},
		quota.DropLimit{Owner: "john", Class: "storage"},
		quota.PutClaim{Claim: &quota.Claim{
			ID: 5, Parent: 3, Owner: "john", State: quota.Reserved, Expires: time.UnixMilli(1767225600123).UTC(),
			Amounts:  []quota.Amount{{Class: "memory", N: 1 << 30}, {Class: "storage", N: 1e12}},
			Requests: []quota.Request{{ID: "r-1", Sum: 0x0102030405060708}},
		}},
		quota.PutClaim{Claim: &quota.Claim{ID: 6, Owner: "john", State: quota.Held, Real: "cinder-1-uuid", Amounts: []quota.Amount{{Class: "storage", N: 1}}}},
		quota.DropClaim{ID: 5, Request: quota.Request{ID: "r-2", Sum: 9}},
		quota.DropClaim{ID: 6},
		nextID{7},
		ended{5, quota.Request{ID: "r-1", Sum: 8}},
	}
}

func encode(changes []any) []byte {
	var e encoder
	e.reset()
	for _, c := range changes {
		e.add(c)
	}
	return e.bytes()
}

// The bytes on media do not change.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "record.golden")
	got := []byte(hex.Dump(encode(everything())))
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// What was encoded is decoded.
func TestRoundTrip(t *testing.T) {
	var got []any
	if err := decode(encode(everything()), func(c any) error { got = append(got, c); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := everything(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// Every byte of a header counts: reserved ones are zero, lengths are exact.
func TestBrokenRecords(t *testing.T) {
	good := encode(everything())
	nop := func(any) error { return nil }
	for n := range good {
		if err := decode(good[:n], nop); err == nil {
			t.Errorf("the first %d of %d bytes: decoded", n, len(good))
		}
	}
	if err := decode(append(bytes.Clone(good), 0), nop); err == nil {
		t.Error("a byte more: decoded")
	}
	for _, at := range []int{0, 1, 2, 5, headerSize, headerSize + 1, headerSize + 2, headerSize + changeHeader + 1} {
		bad := bytes.Clone(good)
		bad[at] ^= 0x80
		if err := decode(bad, nop); err == nil {
			t.Errorf("byte %d flipped: decoded", at)
		}
	}
}

// A decoder survives any bytes, and what it takes it encodes as it was.
func FuzzDecode(f *testing.F) {
	f.Add(encode(everything()))
	for _, c := range everything() {
		f.Add(encode([]any{c}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newImage()
		var all []any
		if decode(b, func(c any) error { all = append(all, c); return m.apply(c) }) != nil {
			return
		}
		if again := encode(all); !bytes.Equal(again, b) {
			t.Errorf("%x becomes %x", b, again)
		}
		if books, err := m.books(nil); err == nil {
			if err := books.Verify(); err != nil {
				t.Error(err)
			}
		}
	})
}
