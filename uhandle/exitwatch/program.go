package exitwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// license lets the programs call helpers that the kernel keeps for those that
// may be linked with it.
const license = "Dual MIT/GPL"

// The record, see the package's documentation.
const (
	recordSize     = 24
	recordProcess  = 0
	recordStatus   = 8
	recordReserved = 12
	recordTime     = 16
)

// record is what the kernel tells of a death.
type record struct {
	process uint64
	status  uint32 // as waitpid gives it
	at      int64  // when, in ns of CLOCK_MONOTONIC
}

var errBadRecord = errors.New("not a record of a death")

// decodeRecord reads a record, which has the machine's byte order.
func decodeRecord(b []byte) (record, error) {
	if len(b) != recordSize {
		return record{}, fmt.Errorf("%w: %d bytes, not %d", errBadRecord, len(b), recordSize)
	}
	if n := binary.NativeEndian.Uint32(b[recordReserved:]); n != 0 {
		return record{}, fmt.Errorf("%w: reserved bytes are %#x, not 0", errBadRecord, n)
	}
	return record{
		process: binary.NativeEndian.Uint64(b[recordProcess:]),
		status:  binary.NativeEndian.Uint32(b[recordStatus:]),
		at:      int64(binary.NativeEndian.Uint64(b[recordTime:])),
	}, nil
}

// maps are what the program and the source share.
type maps struct {
	watched *ebpf.Map // process → nothing
	ring    *ebpf.Map // of records
	lost    *ebpf.Map // one number: records for which the ring had no room
}

// processNumber loads the number of a thread's process.
//
//	to = thread->signal->pids[PIDTYPE_TGID]->ino
func (k *kernel) processNumber(to, thread asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(to, thread, k.taskSignal, asm.DWord),
		asm.LoadMem(to, to, k.signalPid, asm.DWord),
		asm.LoadMem(to, to, k.pidInode, asm.DWord),
	}
}

// watcher is the program at the tracepoint. Its context is the tracepoint's
// arguments, eight bytes each: the thread and, if the kernel has it, group_dead.
func (k *kernel) watcher(m *maps) *ebpf.ProgramSpec {
	const (
		thread  = asm.R6
		process = asm.R7 // its signal_struct
		done    = "done"
	)
	const base = -recordSize // of the record, on the stack
	code := asm.Instructions{asm.LoadMem(thread, asm.R1, 0, asm.DWord)}
	if k.groupDead {
		code = append(code,
			asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),
			asm.JEq.Imm(asm.R2, 0, done),
			asm.LoadMem(process, thread, k.taskSignal, asm.DWord),
		)
	} else {
		// Threads that exit at one time may all find that none lives: whoever
		// reads the records takes the first.
		code = append(code,
			asm.LoadMem(process, thread, k.taskSignal, asm.DWord),
			asm.LoadMem(asm.R2, process, k.signalLive, asm.Word),
			asm.JNE.Imm(asm.R2, 0, done),
		)
	}
	code = append(code, k.processNumber(asm.R1, thread)...)
	code = append(code,
		asm.StoreMem(asm.RFP, base+recordProcess, asm.R1, asm.DWord),

		asm.LoadMapPtr(asm.R1, m.watched.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, base+recordProcess),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, done),

		asm.LoadMem(asm.R1, process, k.signalExitCode, asm.Word),
		asm.StoreMem(asm.RFP, base+recordStatus, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, base+recordReserved, 0, asm.Word),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, base+recordTime, asm.R0, asm.DWord),

		asm.LoadMapPtr(asm.R1, m.ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, base),
		asm.Mov.Imm(asm.R3, recordSize),
		asm.Mov.Imm(asm.R4, 0), // wake the reader if it waits
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, done),

		asm.LoadMapValue(asm.R1, m.lost.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),

		asm.Mov.Imm(asm.R0, 0).WithSymbol(done),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{
		Name: "mpool_exit", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint,
		Instructions: code, License: license,
	}
}

// prover is a program that returns 1 if its context is the number of the process
// that runs it.
func (k *kernel) prover() *ebpf.ProgramSpec {
	const wrong = "wrong"
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.FnGetCurrentTaskBtf.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Imm(asm.R0, 0),
	}
	code = append(code, k.processNumber(asm.R1, asm.R7)...)
	code = append(code,
		asm.JNE.Reg(asm.R1, asm.R6, wrong),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol(wrong),
	)
	return &ebpf.ProgramSpec{Name: "mpool_exit_prove", Type: ebpf.Syscall, Instructions: code, License: license}
}

// prove returns an error unless the kernel finds the number by which a pidfd
// names this process where it is looked for.
func (k *kernel) prove(types *btf.Spec) error {
	self, err := uhandle.Open(int32(os.Getpid()))
	if err != nil {
		return err
	}
	defer self.Close()
	number := self.Inode()
	if number == 0 {
		return fmt.Errorf("%w: it does not number pidfds (Linux 6.9 does)", ErrNotSupported)
	}
	spec := k.prover()
	spec.Flags = unix.BPF_F_SLEEPABLE // all programs of this type are
	prog, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{KernelTypes: types})
	if err != nil {
		return err
	}
	defer prog.Close()
	same, err := prog.Run(&ebpf.RunOptions{Context: number})
	if err != nil {
		return err
	}
	if same != 1 {
		return fmt.Errorf("%w: it numbers processes and pidfds differently", ErrNotSupported)
	}
	return nil
}
