package exitwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// fakeKernel is type information as that of a kernel, small and changeable.
type fakeKernel struct {
	live, exitCode, pids, ino string // names of fields
	tgid                      string
	args                      []btf.FuncParam
}

var (
	long      = &btf.Int{Name: "long", Size: 8}
	integer   = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	boolean   = &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	pointer   = &btf.Pointer{Target: &btf.Void{}}
	groupDead = btf.FuncParam{Name: "group_dead", Type: &btf.Typedef{Name: "bool", Type: boolean}}
)

// plain is a kernel that has all.
func plain() fakeKernel {
	return fakeKernel{
		live: "live", exitCode: "group_exit_code", pids: "pids", ino: "ino", tgid: "PIDTYPE_TGID",
		args: []btf.FuncParam{{Type: pointer}, {Type: pointer}, groupDead},
	}
}

func (k fakeKernel) types(t *testing.T) *btf.Spec {
	t.Helper()
	bits := func(bytes uint32) btf.Bits { return btf.Bits(8 * bytes) }
	pid := &btf.Struct{Name: "pid", Size: 48, Members: []btf.Member{
		{Name: "count", Type: integer},
		{Type: &btf.Union{Size: 24, Members: []btf.Member{
			{Name: "other", Type: long},
			{Type: &btf.Struct{Size: 24, Members: []btf.Member{
				{Name: "level", Type: long, Offset: bits(8)},
				{Name: k.ino, Type: long, Offset: bits(16)},
			}}},
		}}, Offset: bits(24)},
	}}
	signal := &btf.Struct{Name: "signal_struct", Size: 200, Members: []btf.Member{
		{Name: k.live, Type: integer, Offset: bits(4)},
		{Name: k.exitCode, Type: integer, Offset: bits(96)},
		{Name: k.pids, Type: &btf.Array{Index: integer, Type: pointer, Nelems: 4}, Offset: bits(160)},
	}}
	task := &btf.Struct{Name: "task_struct", Size: 3000, Members: []btf.Member{
		{Name: "signal", Type: pointer, Offset: bits(2000)},
	}}
	kinds := &btf.Enum{Name: "pid_type", Size: 4, Values: []btf.EnumValue{{Name: "PIDTYPE_PID"}, {Name: k.tgid, Value: 1}}}
	point := &btf.Typedef{Name: "btf_trace_sched_process_exit", Type: &btf.Pointer{
		Target: &btf.FuncProto{Return: &btf.Void{}, Params: k.args},
	}}
	b, err := btf.NewBuilder([]btf.Type{pid, signal, task, kinds, point}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Fields are where the kernel that runs has them, however deep in structures
// without a name, and what the tracepoint is passed is what it is passed.
func TestProbe(t *testing.T) {
	want := kernel{
		taskSignal: 2000, signalLive: 4, signalExitCode: 96, signalPid: 168, pidInode: 40, groupDead: true,
	}
	if k, err := probe(plain().types(t)); err != nil || k != want {
		t.Errorf("%+v, %v, want %+v", k, err, want)
	}
	want.groupDead = false
	old := plain()
	old.args = old.args[:2]
	if k, err := probe(old.types(t)); err != nil || k != want {
		t.Errorf("without group_dead: %+v, %v, want %+v", k, err, want)
	}
	old.args = append(old.args, btf.FuncParam{Name: "something", Type: long})
	if k, err := probe(old.types(t)); err != nil || k != want {
		t.Errorf("with something else: %+v, %v, want %+v", k, err, want)
	}
}

// A kernel that lacks something is told from one that has all, and what it lacks
// is named.
func TestProbeNamesWhatIsMissing(t *testing.T) {
	for what, without := range map[string]func(k *fakeKernel){
		"pid has no field ino":                       func(k *fakeKernel) { k.ino = "inum" },
		"signal_struct has no field live":            func(k *fakeKernel) { k.live = "x" },
		"signal_struct has no field group_exit_code": func(k *fakeKernel) { k.exitCode = "x" },
		"signal_struct has no field pids":            func(k *fakeKernel) { k.pids = "x" },
		"pid_type has no PIDTYPE_TGID":               func(k *fakeKernel) { k.tgid = "x" },
		"passed no thread":                           func(k *fakeKernel) { k.args = k.args[:1] },
	} {
		k := plain()
		without(&k)
		if _, err := probe(k.types(t)); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
	none, err := btf.NewBuilder([]btf.Type{long}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := none.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := probe(empty); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "tracepoint sched_process_exit") {
		t.Errorf("of nothing: %v", err)
	}
}

// A kernel whose fields lie elsewhere than was found does not number processes
// as their pidfds, and is found out.
func TestProveFindsOut(t *testing.T) {
	open(t, Options{}) // or skip
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	k, err := probe(types)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.prove(types); err != nil {
		t.Error(err)
	}
	wrong := k
	wrong.pidInode += 8
	if err := wrong.prove(types); !errors.Is(err, ErrNotSupported) {
		t.Errorf("%v", err)
	}
}

// A record is what the kernel's program writes, and nothing else.
func TestDecodeRecord(t *testing.T) {
	b := binary.NativeEndian.AppendUint64(nil, 1<<40+5)
	b = binary.NativeEndian.AppendUint32(b, 0x8b)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint64(b, 1<<50+7)
	if r, err := decodeRecord(b); err != nil || r != (record{process: 1<<40 + 5, status: 0x8b, at: 1<<50 + 7}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, b := range [][]byte{nil, b[:23], append(b[:24:24], 0), append(append(b[:12:12], 1, 0, 0, 0), b[16:]...)} {
		if r, err := decodeRecord(b); !errors.Is(err, errBadRecord) {
			t.Errorf("%x: %+v, %v", b, r, err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		again := binary.NativeEndian.AppendUint64(nil, r.process)
		again = binary.NativeEndian.AppendUint32(again, r.status)
		again = binary.NativeEndian.AppendUint64(append(again, 0, 0, 0, 0), uint64(r.at))
		if !bytes.Equal(again, b) {
			t.Errorf("%x was read as %x", b, again)
		}
	})
}
