package mpool

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// proves S14 S22: what a former pool on the drive left at the same places, in
// objects of the same ids and generations, is not taken for this pool's.
func TestFormerPoolStaysForgotten(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		for life := range 3 {
			r.create(api.CreateOptions{Force: true})
			p := r.activate()
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 200_000})
			r.ok(err)
			r.ok(l.Commit(bg))
			a, err := l.OpenAppend(bg)
			r.ok(err)
			if records, _ := a.Len(); records != 0 {
				t.Fatalf("pool %d: a new log has %d records", life, records)
			}
			for i := range 20 - 5*life {
				_, err = a.Append(bg, fmt.Appendf(make([]byte, 3000), "pool %d, record %d", life, i), true)
				r.ok(err)
			}
			r.ok(a.Close(bg))
			reader, err := l.OpenRead(bg)
			r.ok(err)
			buf := make([]byte, 4000)
			for i := range 20 - 5*life {
				n, err := reader.Next(bg, buf)
				r.ok(err)
				if got, want := string(buf[3000:n]), fmt.Sprintf("pool %d, record %d", life, i); got != want {
					t.Fatalf("read %q, want %q", got, want)
				}
			}
			if _, err := reader.Next(bg, buf); err != io.EOF { //nolint:errorlint // readers return it bare
				t.Fatalf("pool %d: after the last record: %v", life, err)
			}
			r.ok(reader.Close())
			r.ok(l.Put())
			r.ok(p.Close())
		}
	})
}

// proves S1 S41: a sector that a power cut has left unreadable does not keep a drive
// from being used again: a creation says so, and --force makes the pool.
func TestCreateOverUnreadableSector(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		for _, off := range []int64{0, 8192, 1 << 20, 16<<20 - 4096} {
			r.disk.SetUnreadable(off, 4096)
			_, err := Create(bg, "p", []string{"sim"}, api.CreateOptions{}, r.options())
			if api.CodeOf(err) != api.EIO && api.CodeOf(err) != api.ESTATE || !strings.Contains(err.Error(), "--force") {
				t.Errorf("%d cannot be read: %v", off, err)
			}
			r.create(api.CreateOptions{Force: true})
			r.ok(r.activate().Close())
		}
	})
}
