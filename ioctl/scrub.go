package ioctl

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// PoolScrub asks for one step of a scrub, from a cursor on, of about so many bytes.
type PoolScrub struct {
	Name  string
	From  api.ScrubCursor
	Bytes int64
}

func (m *PoolScrub) encode(w *writer) {
	b := w.block(24)
	putScrubCursor(b, m.From)
	le.PutUint64(b[16:], uint64(m.Bytes))
	w.str(m.Name, MaxName, "pool name")
}

func (m *PoolScrub) decode(r *reader) {
	b := r.block(24)
	m.From = scrubCursor(b)
	m.Bytes = int64(le.Uint64(b[16:]))
	m.Name = r.str(MaxName)
}

func putScrubCursor(b []byte, c api.ScrubCursor) {
	le.PutUint64(b[0:], uint64(c.Object))
	le.PutUint64(b[8:], c.Place)
}

func scrubCursor(b []byte) api.ScrubCursor {
	return api.ScrubCursor{Object: layout.ObjectID(le.Uint64(b[0:])), Place: le.Uint64(b[8:])}
}

// ScrubProblemsPerStep is the longest list of problems of a step.
const ScrubProblemsPerStep = api.MaxScrubProblems

const (
	scrubStepSize    = 64
	scrubProblemSize = 24
)

const _ = uint(MaxMessage - HeaderSize - scrubStepSize - 2 - ScrubProblemsPerStep*(scrubProblemSize+4+MaxPath+MaxText))

// PoolScrubReply is what a step did.
type PoolScrubReply struct{ Step api.ScrubStep }

func (m *PoolScrubReply) encode(w *writer) {
	b := w.block(scrubStepSize)
	s := &m.Step
	putScrubCursor(b, s.Next)
	for i, n := range [...]int64{s.Verified, s.Covered, s.Total, s.Objects, s.Skipped} {
		le.PutUint64(b[16+8*i:], uint64(n))
	}
	b[56] = bit(s.Done, 1)
	w.count(len(s.Problems), ScrubProblemsPerStep, "list of problems")
	for i := range s.Problems {
		p := &s.Problems[i]
		b := w.block(scrubProblemSize)
		le.PutUint64(b[0:], uint64(p.Object))
		le.PutUint64(b[8:], uint64(p.Offset))
		le.PutUint16(b[16:], uint16(p.Code))
		w.cut(p.Device, MaxPath)
		w.cut(p.Text, MaxText)
	}
}

func (m *PoolScrubReply) decode(r *reader) {
	b := r.block(scrubStepSize)
	s := &m.Step
	s.Next = scrubCursor(b)
	for i, n := range [...]*int64{&s.Verified, &s.Covered, &s.Total, &s.Objects, &s.Skipped} {
		*n = int64(le.Uint64(b[16+8*i:]))
	}
	r.bits(b[56], 1)
	s.Done = b[56] != 0
	r.reserved(b[57:])
	for range r.count(ScrubProblemsPerStep, scrubProblemSize+4) {
		b := r.block(scrubProblemSize)
		p := api.ScrubProblem{
			Object: layout.ObjectID(le.Uint64(b[0:])), Offset: int64(le.Uint64(b[8:])), Code: api.Code(le.Uint16(b[16:])),
		}
		r.reserved(b[18:])
		p.Device = r.str(MaxPath)
		p.Text = r.str(MaxText)
		s.Problems = append(s.Problems, p)
	}
}
