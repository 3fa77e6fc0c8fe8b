package metamorphic

import (
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// Logs are larger than what a list appends to one.
const logBytes = 2 << 20

// record is what an operation appends.
func (w *world) record(o op) []byte { return w.data(o.n % 70_000) }

// full stands for where a pool or a log is full, which depends on geometry: what comes
// after is not compared.
const full = "ENOSPC"

// saidOfLog is said of a call that appends.
func saidOfLog(err error) string {
	if errors.Is(err, api.EFBIG) {
		return full
	}
	return said(err)
}

// log does something with a log's handle, or gets one.
func (w *world) log(o op) string {
	l := w.logs[o.slot]
	switch o.do {
	case "log":
		l, err := w.pool.AllocMlog(w.ctx, api.AllocOptions{Capacity: logBytes, Tag: uint64(o.n)})
		if err == nil && o.off%4 > 0 {
			err = l.Commit(w.ctx)
		}
		return w.giveLog(o.slot, l, err)
	case "log find":
		l, err := w.pool.Mlog(w.ctx, w.any(o.off, layout.KindMlog))
		return w.giveLog(o.slot, l, err)
	}
	if l == nil {
		return w.log(op{"log", o.slot, o.n, 1})
	}
	switch o.do {
	case "open":
		a, err := l.OpenAppend(w.ctx)
		if err != nil {
			return said(err)
		}
		was := "none"
		if old := w.appenders[o.slot]; old != nil {
			was = said(old.Close(w.ctx))
		}
		w.appenders[o.slot] = a
		records, bytes := a.Len()
		return fmt.Sprint(was, records, bytes)
	case "reader":
		r, err := l.OpenRead(w.ctx)
		if err != nil {
			return said(err)
		}
		was := "none"
		if old := w.readers[o.slot]; old != nil {
			was = said(old.Close())
		}
		w.readers[o.slot] = r
		return was
	case "erase":
		return said(l.Erase(w.ctx, uint64(o.off%10)))
	case "log info":
		info, err := l.Info(w.ctx)
		return w.described(&info) + said(err)
	}
	err := l.Delete(w.ctx)
	if err == nil {
		w.logs[o.slot] = nil
	}
	return said(err)
}

func (w *world) giveLog(slot int, l api.Mlog, err error) string {
	if err != nil {
		return said(err)
	}
	w.birth(l.ID())
	if old := w.logs[slot]; old != nil {
		if err := old.Put(); err != nil {
			return "put: " + said(err)
		}
	}
	w.logs[slot] = l
	return w.name(l.ID())
}

// opened does something with an appender or a reader.
func (w *world) opened(o op) string {
	a, r := w.appenders[o.slot], w.readers[o.slot]
	switch o.do {
	case "append", "sync", "close":
		if a == nil {
			return w.log(op{"open", o.slot, o.n, o.off})
		}
	default:
		if r == nil {
			return w.log(op{"reader", o.slot, o.n, o.off})
		}
	}
	switch o.do {
	case "append":
		n, err := a.Append(w.ctx, w.record(o), o.off%3 == 0)
		records, bytes := a.Len()
		return fmt.Sprint(n, saidOfLog(err), records, bytes)
	case "sync":
		return said(a.Sync(w.ctx))
	case "close":
		w.appenders[o.slot] = nil
		return said(a.Close(w.ctx))
	case "next":
		b := make([]byte, 70_000>>(o.off%5))
		n, err := r.Next(w.ctx, b)
		return fmt.Sprint(saidOf(b[:n], err), r.Record())
	case "seek":
		return fmt.Sprint(said(r.Seek(w.ctx, uint64(o.off%12))), r.Record())
	case "rewind":
		r.Rewind()
		return fmt.Sprint(r.Record())
	}
	w.readers[o.slot] = nil
	return said(r.Close())
}

// container does something with a container, which is made and opened when it is not
// there.
func (w *world) container(o op) string {
	c, id := w.containers[o.slot], w.mdcs[o.slot]
	switch {
	case o.do == "container" && id == 0:
		id, err := w.pool.CreateMDC(w.ctx, api.AllocOptions{Capacity: logBytes})
		if err == nil {
			w.mdcs[o.slot] = id
			w.birth(id)
			w.birthOfPartner(id)
		}
		return said(err)
	case o.do == "container":
		c, err := w.pool.OpenMDC(w.ctx, id)
		if err == nil {
			w.containers[o.slot] = c
		}
		return said(err)
	case o.do == "container delete" && id != 0:
		err := w.pool.DeleteMDC(w.ctx, id)
		if err == nil {
			w.mdcs[o.slot] = 0
		}
		return said(err)
	case c == nil:
		return w.container(op{"container", o.slot, o.n, o.off})
	}
	switch o.do {
	case "container append":
		return saidOfLog(c.Append(w.ctx, w.record(o), o.off%2 == 0))
	case "container compact":
		return w.compact(c, o)
	case "container read":
		return w.readContainer(c)
	}
	w.containers[o.slot] = nil
	return said(c.Close(w.ctx))
}

// birthOfPartner names the other log of a container.
func (w *world) birthOfPartner(id layout.ObjectID) {
	for o, err := range w.pool.Objects(w.ctx, api.Filter{Kind: layout.KindMlog}) {
		if err == nil && o.ID == id {
			w.birth(o.Partner)
		}
	}
}

// compact writes some records anew, appends one meanwhile, and ends it or gives it up.
func (w *world) compact(c api.MDC, o op) string {
	s := said(c.CompactStart(w.ctx))
	for i := range o.off % 4 {
		s += saidOfLog(c.CompactAppend(w.ctx, w.record(op{n: o.n + i})))
	}
	s += saidOfLog(c.Append(w.ctx, w.record(op{n: o.n / 2}), o.off%2 > 0))
	if o.off%5 == 0 {
		return s + said(c.CompactAbort(w.ctx))
	}
	return s + said(c.CompactEnd(w.ctx))
}

func (w *world) readContainer(c api.MDC) string {
	r, err := c.OpenRead(w.ctx)
	if err != nil {
		return said(err)
	}
	s := ""
	for b := make([]byte, 70_000); ; {
		n, err := r.Next(w.ctx, b)
		s += saidOf(b[:n], err) + " "
		if err != nil {
			return s + said(r.Close())
		}
	}
}
