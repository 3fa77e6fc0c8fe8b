package behave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// log allocates and commits an mlog.
func (e *Env) log(capacity int64) api.Mlog {
	e.T.Helper()
	l, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{Capacity: capacity})
	e.ok(err)
	e.ok(l.Commit(e.Ctx))
	return l
}

// records reads everything that is left for a reader.
func (e *Env) records(r api.LogReader) [][]byte {
	e.T.Helper()
	var all [][]byte
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Next(e.Ctx, buf)
		if errors.Is(err, io.EOF) {
			return all
		}
		e.ok(err)
		all = append(all, bytes.Clone(buf[:n]))
	}
}

// proves S20 S21 S24
func logLife(e *Env) {
	l := e.log(1 << 20)
	a, err := l.OpenAppend(e.Ctx)
	e.ok(err)
	var want [][]byte
	for i, n := range []int{0, 1, 100, 4000, 4024, 4016, 4017, 5000, 0, 100_000, 7} {
		rec := data(uint64(i), n)
		number, err := a.Append(e.Ctx, rec, i%3 == 0)
		e.ok(err)
		e.equal("the record's number", number, uint64(i))
		want = append(want, rec)
	}
	e.ok(a.Sync(e.Ctx))
	r, err := l.OpenRead(e.Ctx)
	e.ok(err)
	got := e.records(r)
	e.equal("number of records", len(got), len(want))
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			e.T.Fatalf("record %d of %d bytes came back with %d", i, len(want[i]), len(got[i]))
		}
	}
	// A reader finds what comes later.
	_, err = a.Append(e.Ctx, []byte("later"), true)
	e.ok(err)
	e.equal("later records", fmt.Sprintf("%s", e.records(r)), "[later]")
	// Seek, too small a buffer, rewind.
	e.ok(r.Seek(e.Ctx, 9))
	e.equal("the reader's place", r.Record(), uint64(9))
	_, err = r.Next(e.Ctx, make([]byte, 10))
	e.want(api.EOVERFLOW, err)
	var known *api.Error
	if !errors.As(err, &known) || known.Want != 100_000 {
		e.T.Fatalf("%v does not say how large the record is", err)
	}
	e.equal("the unmoved place", r.Record(), uint64(9))
	e.equal("the rest", len(e.records(r)), 3)
	e.want(api.ENOENT, r.Seek(e.Ctx, 100))
	r.Rewind()
	e.equal("after a rewind", len(e.records(r)), 12)
	e.ok(r.Close())
	e.want(api.EBADF, r.Close())
	e.want(api.EBUSY, l.Delete(e.Ctx))
	e.ok(a.Close(e.Ctx))
	e.ok(l.Delete(e.Ctx))
}

// proves S24 S25
func logMisuse(e *Env) {
	_, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{})
	e.want(api.EINVAL, err)
	_, err = e.Pool.Mlog(e.Ctx, layout.NewObjectID(layout.KindMblock, 1))
	e.want(api.EINVAL, err)
	u, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{Capacity: 1000})
	e.ok(err)
	_, err = u.OpenAppend(e.Ctx)
	e.want(api.ESTATE, err)
	e.want(api.ESTATE, u.Erase(e.Ctx, 0))
	e.ok(u.Abort(e.Ctx))
	l := e.log(1 << 16)
	a, err := l.OpenAppend(e.Ctx)
	e.ok(err)
	_, err = l.OpenAppend(e.Ctx)
	e.want(api.EBUSY, err)
	e.want(api.EBUSY, l.Erase(e.Ctx, 0))
	_, err = a.Append(e.Ctx, make([]byte, api.MaxRecord+1), false)
	e.want(api.EINVAL, err)
	e.ok(a.Close(e.Ctx))
	_, err = a.Append(e.Ctx, nil, false)
	e.want(api.EBADF, err)
	e.want(api.EBADF, a.Close(e.Ctx))
	e.ok(l.Put())
}

// proves S20 S24
func logFull(e *Env) {
	const capacity = 100_000
	l := e.log(capacity)
	a, err := l.OpenAppend(e.Ctx)
	e.ok(err)
	// One record as large as the capacity fits.
	_, err = a.Append(e.Ctx, data(1, capacity), true)
	e.ok(err)
	n := 1
	for ; ; n++ {
		if _, err = a.Append(e.Ctx, data(2, 1000), false); err != nil {
			break
		}
		if n > 1000 {
			e.T.Fatal("the log is never full")
		}
	}
	e.want(api.EFBIG, err)
	records, _ := a.Len()
	e.equal("records after a refused one", records, uint64(n))
	e.ok(a.Close(e.Ctx))
	r, err := l.OpenRead(e.Ctx)
	e.ok(err)
	e.equal("records", len(e.records(r)), n)
	e.ok(r.Close())
	e.ok(l.Delete(e.Ctx))
}

// proves S21: appenders in flight share flushes and every record is there once.
func logConcurrentAppends(e *Env) {
	const tasks, each = 8, 25
	l := e.log(1 << 20)
	a, err := l.OpenAppend(e.Ctx)
	e.ok(err)
	e.many(tasks, func(i int) error {
		for j := range each {
			if _, err := a.Append(e.Ctx, fmt.Appendf(nil, "%d %d", i, j), j%2 == 0); err != nil {
				return err
			}
		}
		return nil
	})
	e.ok(a.Close(e.Ctx))
	r, err := l.OpenRead(e.Ctx)
	e.ok(err)
	next := make([]int, tasks)
	for _, rec := range e.records(r) {
		var i, j int
		_, err := fmt.Sscanf(string(rec), "%d %d", &i, &j)
		e.ok(err)
		e.equal("the order of one task's records", j, next[i])
		next[i]++
	}
	for i := range next {
		e.equal("records of a task", next[i], each)
	}
	e.ok(r.Close())
	e.ok(l.Put())
}

// proves S24
func logErase(e *Env) {
	l := e.log(1 << 16)
	for round := range 3 {
		a, err := l.OpenAppend(e.Ctx)
		e.ok(err)
		for range 5 + round {
			_, err = a.Append(e.Ctx, data(uint64(round), 3000), false)
			e.ok(err)
		}
		e.ok(a.Close(e.Ctx))
		before, err := l.Info(e.Ctx)
		e.ok(err)
		e.ok(l.Erase(e.Ctx, uint64(round*10)))
		after, err := l.Info(e.Ctx)
		e.ok(err)
		if after.Generation <= before.Generation || after.Generation < uint64(round*10) {
			e.T.Fatalf("generation %d after %d", after.Generation, before.Generation)
		}
		r, err := l.OpenRead(e.Ctx)
		e.ok(err)
		e.equal("records after an erase", len(e.records(r)), 0)
		e.ok(r.Close())
	}
	e.ok(l.Put())
}

// proves S26
func container(e *Env) {
	id, err := e.Pool.CreateMDC(e.Ctx, api.AllocOptions{Capacity: 1 << 16})
	e.ok(err)
	c, err := e.Pool.OpenMDC(e.Ctx, id)
	e.ok(err)
	_, err = e.Pool.OpenMDC(e.Ctx, id)
	e.want(api.EBUSY, err)
	e.want(api.EBUSY, e.Pool.DeleteMDC(e.Ctx, id))
	for i := range 10 {
		e.ok(c.Append(e.Ctx, fmt.Appendf(nil, "old %d", i), i == 9))
	}
	r, err := c.OpenRead(e.Ctx)
	e.ok(err)
	e.equal("records", len(e.records(r)), 10)
	e.ok(c.CompactStart(e.Ctx))
	e.want(api.ESTATE, c.CompactStart(e.Ctx))
	e.ok(c.CompactAppend(e.Ctx, []byte("compacted")))
	e.ok(c.Append(e.Ctx, []byte("meanwhile"), true))
	e.ok(c.CompactEnd(e.Ctx))
	_, err = r.Next(e.Ctx, make([]byte, 100))
	e.want(api.ESTALE, err)
	r.Rewind()
	e.equal("after the compaction", fmt.Sprintf("%s", e.records(r)), "[compacted meanwhile]")
	e.ok(r.Close())
	used, capacity := c.Usage()
	if used <= 0 || used >= capacity || capacity < 1<<16 {
		e.T.Fatalf("usage %d of %d", used, capacity)
	}
	// An abandoned compaction changes nothing.
	e.ok(c.CompactStart(e.Ctx))
	e.ok(c.CompactAppend(e.Ctx, []byte("lost")))
	e.ok(c.CompactAbort(e.Ctx))
	e.ok(c.Close(e.Ctx))
	e.want(api.EBADF, c.Append(e.Ctx, nil, false))
	// Its logs are not to be used by themselves.
	l, err := e.Pool.Mlog(e.Ctx, id)
	e.ok(err)
	_, err = l.OpenAppend(e.Ctx)
	e.want(api.ESTATE, err)
	e.want(api.ESTATE, l.Delete(e.Ctx))
	e.ok(l.Put())
	c, err = e.Pool.OpenMDC(e.Ctx, id)
	e.ok(err)
	r, err = c.OpenRead(e.Ctx)
	e.ok(err)
	e.equal("reopened", fmt.Sprintf("%s", e.records(r)), "[compacted meanwhile]")
	e.ok(r.Close())
	e.ok(c.Close(e.Ctx))
	e.ok(e.Pool.DeleteMDC(e.Ctx, id))
	_, err = e.Pool.OpenMDC(e.Ctx, id)
	e.want(api.ENOENT, err)
}

// proves S3 S12 S36
func reopen(e *Env) {
	want := data(9, 70000)
	id := e.put(want, api.AllocOptions{Tag: 5})
	u, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 4096})
	e.ok(err)
	_, err = u.Write(e.Ctx, make([]byte, 4096))
	e.ok(err)
	l := e.log(1 << 16)
	a, err := l.OpenAppend(e.Ctx)
	e.ok(err)
	for i := range 50 {
		_, err = a.Append(e.Ctx, fmt.Appendf(nil, "record %d", i), i == 39)
		e.ok(err)
	}
	owner, err := e.Pool.AddOwner(e.Ctx, "t", 0)
	e.ok(err)
	e.ok(e.Pool.SetRoots(e.Ctx, []api.Root{{Name: "log", ID: l.ID()}}))
	e.Pool = e.Reopen()
	e.has(id, want)
	_, err = e.Pool.Mblock(e.Ctx, u.ID())
	e.want(api.ENOENT, err)
	list, err := e.Pool.Roots(e.Ctx)
	e.ok(err)
	e.equal("roots", fmt.Sprint(list), fmt.Sprint([]api.Root{{Name: "log", ID: l.ID()}}))
	owners, err := e.Pool.Owners(e.Ctx)
	e.ok(err)
	e.equal("owners", len(owners), int(owner)+1)
	l, err = e.Pool.Mlog(e.Ctx, l.ID())
	e.ok(err)
	r, err := l.OpenRead(e.Ctx)
	e.ok(err)
	got := e.records(r)
	if len(got) < 40 {
		e.T.Fatalf("%d records after a restart; 40 were synced", len(got))
	}
	for i, rec := range got {
		e.equal("record", string(rec), fmt.Sprintf("record %d", i))
	}
	e.ok(r.Close())
	e.ok(l.Put())
	if next := e.put(nil, api.AllocOptions{}); next.Counter() <= u.ID().Counter() {
		e.T.Fatalf("id %v was given after %v", next, u.ID())
	}
}

// proves S10 S41
func fullPool(e *Env) {
	var ids []layout.ObjectID
	var err error
	for {
		var m api.Mblock
		if m, err = e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 8 << 20}); err != nil {
			break
		}
		e.ok(m.Commit(e.Ctx)) // gives back what it did not use
		e.ok(m.Put())
		ids = append(ids, m.ID())
		full, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 4 << 20})
		if err != nil {
			break
		}
		_, err = full.Write(e.Ctx, make([]byte, 4<<20))
		e.ok(err)
		e.ok(full.Commit(e.Ctx))
		e.ok(full.Put())
		ids = append(ids, full.ID())
	}
	_, err = e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 64 << 20})
	e.want(api.ENOSPC, err)
	var known *api.Error
	if !errors.As(err, &known) || known.Want < 64<<20 || known.Longest > known.Have {
		e.T.Fatalf("%v does not say what is free", err)
	}
	for _, id := range ids {
		m, err := e.Pool.Mblock(e.Ctx, id)
		e.ok(err)
		e.ok(m.Delete(e.Ctx))
	}
	// What was freed can be had at once, though it may be on its way.
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 32 << 20})
	e.ok(err)
	e.ok(m.Abort(e.Ctx))
}

// proves S46: with its deadline passed an operation says so and is not done.
func deadlines(e *Env) {
	id := e.put(data(1, 5000), api.AllocOptions{})
	late, cancel := e.Sched.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	e.ok(e.Sched.Sleep(e.Ctx, 10*time.Millisecond))
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 8192})
	e.ok(err)
	if err := m.Commit(late); err != nil {
		if code := api.CodeOf(err); code != api.ETIMEDOUT && code != api.EUNKNOWN {
			e.T.Fatalf("Commit after its deadline: %v", err)
		}
	}
	if err := e.Pool.SetRoots(late, []api.Root{{Name: "late", ID: id}}); err != nil {
		if code := api.CodeOf(err); code != api.ETIMEDOUT && code != api.EUNKNOWN {
			e.T.Fatalf("SetRoots after its deadline: %v", err)
		}
	}
	// Whatever became of it, the pool goes on.
	e.ok(e.Pool.SetRoots(e.Ctx, []api.Root{{Name: "early", ID: id}}))
	e.has(id, data(1, 5000))
	if err := m.Commit(e.Ctx); err != nil && api.CodeOf(err) != api.ESTATE {
		e.T.Fatal(err)
	}
	e.ok(m.Put())
}
