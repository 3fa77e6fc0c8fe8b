package exitwatch

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/btf"
)

// ErrNotSupported is returned when the kernel lacks something that is needed.
var ErrNotSupported = errors.New("this kernel's exits cannot be watched")

// tracepoint is where the program is attached.
const tracepoint = "sched_process_exit"

// kernel is what the program must know of the kernel that runs: the offsets of
// fields, in bytes, and what the tracepoint is passed.
type kernel struct {
	taskSignal     int16 // task_struct.signal, a pointer
	signalLive     int16 // signal_struct.live: how many threads have not begun to exit
	signalExitCode int16 // signal_struct.group_exit_code, as waitpid gives it
	signalPid      int16 // signal_struct.pids[PIDTYPE_TGID], a pointer to the process's struct pid
	pidInode       int16 // pid.ino

	// groupDead is set if the tracepoint is passed whether the thread is the
	// last. The change to the kernel that did so also moved the tracepoint
	// ahead of the end of the memory.
	groupDead bool
}

// probe looks a kernel up in its type information.
func probe(types *btf.Spec) (kernel, error) {
	var k kernel
	var errs [6]error
	k.taskSignal, errs[0] = offset(types, "task_struct", "signal")
	k.signalLive, errs[1] = offset(types, "signal_struct", "live")
	k.signalExitCode, errs[2] = offset(types, "signal_struct", "group_exit_code")
	k.signalPid, errs[3] = processPid(types)
	k.pidInode, errs[4] = offset(types, "pid", "ino")
	k.groupDead, errs[5] = passesGroupDead(types)
	if err := errors.Join(errs[:]...); err != nil {
		return kernel{}, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return k, nil
}

// offset returns where a field lies in a structure of the kernel.
func offset(types *btf.Spec, structure, field string) (int16, error) {
	var s *btf.Struct
	if err := types.TypeByName(structure, &s); err != nil {
		return 0, fmt.Errorf("struct %s: %w", structure, err)
	}
	at, ok := member(s.Members, field)
	if !ok {
		return 0, fmt.Errorf("struct %s has no field %s", structure, field)
	}
	return displacement(at)
}

// displacement makes an offset one of an instruction.
func displacement(at uint32) (int16, error) {
	if at > math.MaxInt16 {
		return 0, fmt.Errorf("offset %d is out of an instruction's reach", at)
	}
	return int16(at), nil
}

// member finds a field, also in structures and unions without a name.
func member(members []btf.Member, name string) (at uint32, ok bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), m.BitfieldSize == 0
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := member(inner, name); ok {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}

// pointerSize is that of the kernels that are supported.
const pointerSize = 8

// processPid returns the offset of a process's struct pid in its signal_struct.
func processPid(types *btf.Spec) (int16, error) {
	pids, err := offset(types, "signal_struct", "pids")
	if err != nil {
		return 0, err
	}
	var kinds *btf.Enum
	if err := types.TypeByName("pid_type", &kinds); err != nil {
		return 0, fmt.Errorf("enum pid_type: %w", err)
	}
	for _, v := range kinds.Values {
		if v.Name == "PIDTYPE_TGID" && v.Value <= math.MaxInt16 {
			return displacement(uint32(pids) + uint32(v.Value)*pointerSize)
		}
	}
	return 0, errors.New("enum pid_type has no PIDTYPE_TGID")
}

// passesGroupDead says whether the tracepoint is passed, beside the thread,
// whether that is the last of its process.
func passesGroupDead(types *btf.Spec) (bool, error) {
	var t *btf.Typedef
	if err := types.TypeByName("btf_trace_"+tracepoint, &t); err != nil {
		return false, fmt.Errorf("tracepoint %s: %w", tracepoint, err)
	}
	p, ok := btf.As[*btf.Pointer](t)
	if !ok {
		return false, fmt.Errorf("tracepoint %s is no pointer", tracepoint)
	}
	f, ok := btf.As[*btf.FuncProto](p.Target)
	const first = 2 // of the parameters: the tracer's own data and the thread
	if !ok || len(f.Params) < first {
		return false, fmt.Errorf("tracepoint %s is passed no thread", tracepoint)
	}
	if len(f.Params) == first {
		return false, nil
	}
	flag, ok := btf.As[*btf.Int](f.Params[first].Type)
	return ok && flag.Encoding == btf.Bool, nil
}
