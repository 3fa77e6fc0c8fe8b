package mlog

import (
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// Config says which log, and where it is.
type Config struct {
	Sched      *sched.Sched
	Drive      *bdev.Drive
	Extent     layout.Extent
	ID         layout.ObjectID // for errors only
	Birth      layout.BirthStamp
	Generation uint64 // as recorded in the metadata; raised by each erase
	// Epoch is that of this activation of the pool. It is durable before the
	// activation's first write, and higher than that of any before it.
	Epoch uint64

	// Writers, if set, are the drive's, and write the log together with others,
	// but for what somebody writes who waits for it, and large groups. Nil: a task of the log's does.
	Writers *Writers

	// Since is from before the first write that the log may hold; zero, what
	// everybody but the log's own maker uses, means since the drive was opened.
	Since bdev.Ticket

	// OnDurable, if set, is called by the log's writer when a group has become
	// durable, before anybody who waits for it is told: all records with
	// numbers below records are durable. Calls come one after another, with
	// rising numbers and no lock held. It must not call the log, and must not block:
	// all who append to the log wait meanwhile, and with Writers to any log of the
	// drive.
	OnDurable func(records uint64)
	// OnFailure, if set, is called once, in the same way, when a group could
	// not be made durable: the log is poisoned.
	OnFailure func(error)
	// Replay, if set, is called by Open for each record, in order; the slice is
	// valid until it returns. An error ends Open with it. Open may still fail
	// after the last call.
	Replay func(number uint64, record []byte) error
	// Expect, if set, is called by Open before Replay: the log holds at most
	// about so many bytes of records.
	Expect func(bytes int64)
}

func (c *Config) validate(op string) error {
	var why string
	switch {
	case c.Drive == nil:
		why = "no drive"
	case c.Extent.Blocks <= SlotPages:
		why = fmt.Sprintf("an extent of %d blocks is too small for a log", c.Extent.Blocks)
	case c.Extent.End() > uint64(c.Drive.Geometry().Size)/PageSize:
		why = "the extent is not on the drive"
	default:
		return nil
	}
	return &api.Error{Code: api.EINVAL, Op: op, Object: c.ID, Detail: why}
}

// pairOffset returns where a pair of tail slots is on the drive, in bytes.
func (c *Config) pairOffset(pair int) int64 {
	return c.Extent.Offset() + int64(pair)*PairPages*PageSize
}
