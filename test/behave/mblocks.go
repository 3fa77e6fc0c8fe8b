package behave

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// proves S10 S12 S13 S15
func mblockLife(e *Env) {
	want := data(1, 10000)
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 1 << 20, Tag: 42})
	e.ok(err)
	e.equal("kind", m.ID().Kind(), layout.KindMblock)
	_, err = m.Write(e.Ctx, want[:8192])
	e.ok(err)
	got := make([]byte, 8192)
	_, err = m.ReadAtContext(e.Ctx, got, 0)
	e.ok(err)
	e.equal("own uncommitted data", bytes.Equal(got, want[:8192]), true)
	_, err = m.Write(e.Ctx, want[8192:])
	e.ok(err)
	info, err := m.Info(e.Ctx)
	e.ok(err)
	e.equal("state", info.State, api.StateUncommitted)
	e.ok(m.Commit(e.Ctx))
	e.ok(m.Commit(e.Ctx)) // of one's own committed object
	info, err = m.Info(e.Ctx)
	e.ok(err)
	e.equal("state", info.State, api.StateCommitted)
	e.equal("length", info.Length, int64(len(want)))
	e.equal("tag", info.Tag, uint64(42))
	for _, r := range [][2]int{{0, 10000}, {1, 9998}, {4095, 2}, {4096, 4096}, {9999, 1}, {8191, 1809}} {
		got := make([]byte, r[1])
		n, err := m.ReadAtContext(e.Ctx, got, int64(r[0]))
		if err != nil && !errors.Is(err, io.EOF) {
			e.T.Fatal(err)
		}
		e.equal("bytes read", n, r[1])
		e.equal("content", bytes.Equal(got, want[r[0]:r[0]+r[1]]), true)
	}
	n, err := m.ReadAtContext(e.Ctx, make([]byte, 100), 9990)
	e.equal("a read past the end gives", fmt.Sprint(n, err), "10 EOF")
	n, err = m.ReadAtContext(e.Ctx, make([]byte, 1), 10000)
	e.equal("a read at the end gives", fmt.Sprint(n, err), "0 EOF")
	e.ok(m.Delete(e.Ctx))
	_, err = e.Pool.Mblock(e.Ctx, m.ID())
	e.want(api.ENOENT, err)
}

// proves S11 S14
func mblockSizes(e *Env) {
	for i, n := range []int{0, 1, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, 69632, 69633, 1 << 20, 3<<20 + 5} {
		want := data(uint64(i), n)
		id := e.put(want, api.AllocOptions{})
		e.has(id, want)
		m, err := e.Pool.Mblock(e.Ctx, id)
		e.ok(err)
		e.ok(m.Delete(e.Ctx))
	}
}

// proves S11 S12 S15
func mblockMisuse(e *Env) {
	_, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: -1})
	e.want(api.EINVAL, err)
	_, err = e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: api.MaxMblockCapacity + 1})
	e.want(api.EINVAL, err)
	_, err = e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 1, Owner: 99})
	e.want(api.ENOENT, err)
	_, err = e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 1, Class: api.ClassStaging})
	e.want(api.ENOENT, err)
	_, err = e.Pool.Mblock(e.Ctx, layout.NewObjectID(layout.KindMlog, 1))
	e.want(api.EINVAL, err)
	_, err = e.Pool.Mblock(e.Ctx, layout.NewObjectID(layout.KindMblock, 999999))
	e.want(api.ENOENT, err)
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 8192})
	e.ok(err)
	_, err = m.Write(e.Ctx, make([]byte, 8193))
	e.want(api.EFBIG, err)
	e.want(api.ESTATE, m.Delete(e.Ctx))
	_, err = m.Write(e.Ctx, make([]byte, 100))
	e.ok(err)
	_, err = m.Write(e.Ctx, make([]byte, 100)) // after one that was no multiple
	e.want(api.ESTATE, err)
	e.ok(m.Commit(e.Ctx))
	_, err = m.Write(e.Ctx, make([]byte, 100))
	e.want(api.ESTATE, err)
	e.want(api.ESTATE, m.Abort(e.Ctx))
	_, err = m.ReadAtContext(e.Ctx, make([]byte, 1), -1)
	e.want(api.EINVAL, err)
	e.ok(m.Put())
	e.want(api.EBADF, m.Put())
	e.want(api.EBADF, m.Commit(e.Ctx))
	e.want(api.EBADF, m.Delete(e.Ctx))
	_, err = m.Info(e.Ctx)
	e.want(api.EBADF, err)
	_, err = m.ReadAtContext(e.Ctx, make([]byte, 1), 0)
	e.want(api.EBADF, err)
	e.has(m.ID(), make([]byte, 100))
}

// proves S11
func mblockConcurrentWrites(e *Env) {
	const n, size = 16, 64 << 10
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: n * size})
	e.ok(err)
	e.many(n, func(i int) error {
		_, err := m.Write(e.Ctx, bytes.Repeat([]byte{byte(i + 1)}, size))
		return err
	})
	e.ok(m.Commit(e.Ctx))
	var got bytes.Buffer
	_, err = m.WriteTo(&got)
	e.ok(err)
	seen := make(map[byte]bool)
	for off := 0; off < n*size; off += size {
		b := got.Bytes()[off]
		if seen[b] || !bytes.Equal(got.Bytes()[off:off+size], bytes.Repeat([]byte{b}, size)) {
			e.T.Fatalf("the write at %d is torn or there twice", off)
		}
		seen[b] = true
	}
	e.ok(m.Delete(e.Ctx))
}
