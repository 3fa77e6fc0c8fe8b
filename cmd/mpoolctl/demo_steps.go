package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

const (
	demoLogSize   = 1 << 20 // bytes of records that the demo's log has room for
	demoWriters   = 16      // goroutines that append to it
	demoRecords   = 25      // records of each
	demoManyCount = 16      // objects in one commit
)

// write allocates an mblock and writes data to it. The mblock is the caller's to
// commit or abort, also after an error, when there is one.
func (w *demo) write(ctx context.Context, data []byte) (api.Mblock, error) {
	m, err := w.mine.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data)), Tag: w.tag})
	if err != nil {
		return nil, err
	}
	w.made = append(w.made, m.ID())
	for len(data) > 0 {
		n := min(len(data), putBuffer)
		if _, err := m.Write(ctx, data[:n]); err != nil {
			return m, err
		}
		data = data[n:]
	}
	return m, nil
}

// store puts each file into an mblock of its own.
func (w *demo) store(ctx context.Context) (string, error) {
	var total int64
	begin := time.Now()
	for _, f := range w.files {
		m, err := w.write(ctx, f.data)
		if err == nil {
			err = m.Commit(ctx)
		}
		if err != nil {
			return "", wrapPath(f.name, err)
		}
		w.blocks = append(w.blocks, m.ID())
		total += int64(len(f.data))
		if err := m.Put(); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s in %s, %d ms", formatSize(total), plural(len(w.files), "mblock"), time.Since(begin).Milliseconds()), nil
}

// read compares every byte, through the other session.
func (w *demo) read(ctx context.Context) (string, error) {
	begin := time.Now()
	for i, f := range w.files {
		m, err := w.other.Mblock(ctx, w.blocks[i])
		if err != nil {
			return "", err
		}
		err = sameBytes(ctx, m, f.data)
		if err := errors.Join(err, m.Put()); err != nil {
			return "", wrapPath(f.name, err)
		}
	}
	return fmt.Sprintf("every byte is the same, read by another session in %d ms", time.Since(begin).Milliseconds()), nil
}

// sameBytes reads a whole mblock and compares it.
func sameBytes(ctx context.Context, m api.Mblock, want []byte) error {
	got := make([]byte, len(want)+1)
	n, err := m.ReadAtContext(ctx, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.Equal(got[:n], want) {
		return api.Errorf(api.ECORRUPT, "", "%d bytes were read back, and they are not the %d that were written", n, len(want))
	}
	return nil
}

// uncommitted shows who sees an uncommitted mblock, and aborts it.
func (w *demo) uncommitted(ctx context.Context) (string, error) {
	m, err := w.write(ctx, make([]byte, 8192))
	if err != nil {
		return "", err
	}
	id := m.ID()
	if err := sameBytes(ctx, m, make([]byte, 8192)); err != nil {
		return "", err
	}
	seen, err := w.other.Mblock(ctx, id)
	if err == nil {
		return "", errors.Join(api.Errorf(api.EEXIST, "", "another session sees %v, which is not committed", id), seen.Put())
	}
	if !errors.Is(err, api.ENOENT) {
		return "", err
	}
	if err := m.Abort(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v can be read here; to another session it does not exist (ENOENT); aborted", id), nil
}

// log appends from many goroutines and reads everything back.
func (w *demo) log(ctx context.Context) (string, error) {
	log, err := w.mine.AllocMlog(ctx, api.AllocOptions{Capacity: demoLogSize, Tag: w.tag})
	if err != nil {
		return "", err
	}
	w.made = append(w.made, log.ID())
	if err := log.Commit(ctx); err != nil {
		return "", err
	}
	begin := time.Now()
	if err := appendAll(ctx, log); err != nil {
		return "", err
	}
	took := time.Since(begin)
	if err := errors.Join(readAllRecords(ctx, log), log.Put()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records from %d goroutines, each durable when its append returned, in %d ms; all read back",
		demoWriters*demoRecords, demoWriters, took.Milliseconds()), nil
}

// appendAll appends records that say who wrote them and which they are.
func appendAll(ctx context.Context, log api.Mlog) error {
	a, err := log.OpenAppend(ctx)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var writers sync.WaitGroup
	for who := range demoWriters {
		writers.Go(func() {
			for n := range demoRecords {
				record := binary.LittleEndian.AppendUint32(nil, uint32(who))
				record = binary.LittleEndian.AppendUint32(record, uint32(n))
				if _, err := a.Append(ctx, record, true); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	writers.Wait()
	return errors.Join(context.Cause(ctx), a.Close(context.WithoutCancel(ctx)))
}

// readAllRecords reads the log and looks for what is missing, twice there or out
// of order.
func readAllRecords(ctx context.Context, log api.Mlog) error {
	r, err := log.OpenRead(ctx)
	if err != nil {
		return err
	}
	var next [demoWriters]uint32
	buf := make([]byte, 16)
	for {
		n, err := r.Next(ctx, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, r.Close())
		}
		who := binary.LittleEndian.Uint32(buf)
		if n != 8 || who >= demoWriters || binary.LittleEndian.Uint32(buf[4:]) != next[who] {
			return errors.Join(api.Errorf(api.ECORRUPT, "", "record %d is not the one that belongs there", r.Record()-1), r.Close())
		}
		next[who]++
	}
	for who, n := range next {
		if n != demoRecords {
			return errors.Join(api.Errorf(api.ECORRUPT, "", "%d of %d records of goroutine %d came back", n, demoRecords, who), r.Close())
		}
	}
	return r.Close()
}

// commitMany commits objects and a root in one transaction.
func (w *demo) commitMany(ctx context.Context) (string, error) {
	objects := make([]api.Object, 0, demoManyCount)
	var first layout.ObjectID
	for i := range demoManyCount {
		m, err := w.write(ctx, []byte{byte(i)})
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = m.ID()
		}
		objects = append(objects, m)
	}
	begin := time.Now()
	if err := w.mine.CommitMany(ctx, objects, []api.Root{{Name: w.root, ID: first}}); err != nil {
		return "", err
	}
	took := time.Since(begin)
	for _, o := range objects {
		if err := o.Put(); err != nil {
			return "", err
		}
	}
	id, err := objectID(ctx, w.other, "@"+w.root)
	if err != nil {
		return "", err
	}
	m, err := w.other.Mblock(ctx, id)
	if err != nil {
		return "", err
	}
	if err := errors.Join(sameBytes(ctx, m, []byte{0}), m.Put()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d mblocks and the root %s in one transaction, %d ms; another session found %v by the root",
		demoManyCount, w.root, took.Milliseconds(), id), nil
}

// handles shows that a reference keeps an object from being deleted.
func (w *demo) handles(ctx context.Context) (string, error) {
	id := w.blocks[0]
	theirs, err := w.other.Mblock(ctx, id)
	if err != nil {
		return "", err
	}
	ours, err := w.mine.Mblock(ctx, id)
	if err != nil {
		return "", errors.Join(err, theirs.Put())
	}
	err = ours.Delete(ctx)
	if !errors.Is(err, api.EBUSY) {
		return "", errors.Join(api.Errorf(api.ESTATE, "", "deleting %v while another session uses it gave %v", id, err), theirs.Put())
	}
	refused := failureOf("mblock delete", err).sentence()
	if err := theirs.Put(); err != nil {
		return "", err
	}
	if err := ours.Delete(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("refused with EBUSY: %s; deleted after the other session gave its handle back", refused), nil
}

// space adds up the pool's space.
func (w *demo) space(ctx context.Context) (string, error) {
	info, err := w.mine.Info(ctx)
	if err != nil {
		return "", err
	}
	s := info.Space
	sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder
	if sum != s.Total {
		return "", api.Errorf(api.ECORRUPT, "", "the parts add up to %d bytes, the drives have %d", sum, s.Total)
	}
	return fmt.Sprintf("free %s + live %s + uncommitted %s + draining %s + spare %s + overhead %s + remainder %s = %s, to the byte",
		formatSize(s.Free), formatSize(s.Live), formatSize(s.Uncommitted), formatSize(s.Draining),
		formatSize(s.Spare), formatSize(s.Overhead), formatSize(s.Remainder), formatSize(s.Total)), nil
}
