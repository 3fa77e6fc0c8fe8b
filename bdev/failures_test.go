package bdev_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// What the device fails of writes and flushes is counted, and told before
// anybody who waits; reads, discards and what was wrong with the operation are
// not.
func TestFailuresOfWritesAndFlushes(t *testing.T) {
	disk := sim.NewDisk(1<<20, sim.DiskOptions{Discard: true})
	d, err := sim.Open(nil, disk, sim.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var told []bdev.OpCode
	d.Watch(func(code bdev.OpCode, err error) {
		if err == nil || d.Failures() != uint64(len(told))+1 {
			t.Errorf("%v: %v with %d failures", code, err, d.Failures())
		}
		told = append(told, code)
	})
	buf := bdev.AllocBuffer(4096)
	defer bdev.FreeBuffer(buf)
	run := func(o bdev.Op) {
		t.Helper()
		before := len(told)
		o.OnDone = func(*bdev.Op) {
			if d.Failures() != uint64(len(told)) {
				t.Error("somebody is told before the drive's owner")
			}
		}
		if err := d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{&o}}); err == nil {
			t.Errorf("%v at %d did not fail", o.Code, o.Offset)
		}
		if want := o.Code == bdev.OpWrite && o.Offset == 0 || o.Code == bdev.OpFlush; want != (len(told) > before) {
			t.Errorf("%v at %d: told %v", o.Code, o.Offset, told[before:])
		}
	}
	disk.Inject(sim.Fault{Err: syscall.EIO})
	run(bdev.Op{Code: bdev.OpRead, Buf: buf})
	run(bdev.Op{Code: bdev.OpDiscard, Length: 4096})
	run(bdev.Op{Code: bdev.OpWrite, Buf: buf})
	run(bdev.Op{Code: bdev.OpFlush})
	run(bdev.Op{Code: bdev.OpWrite, Buf: buf, Offset: 1 << 20})
	run(bdev.Op{Code: bdev.OpWrite, Buf: buf[:100], Offset: 4096})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
