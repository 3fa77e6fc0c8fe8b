package arch

const module = "github.com/mpool-go/mpool"

// rule says what one package of the module may import of the module, and why
// not more. Test files may import more.
type rule struct {
	imports []string
	why     string
}

// rules is the table. Names are relative to the module.
var rules = map[string]rule{
	"sched":  {nil, "what everything blocks on knows nothing of what blocks"},
	"layout": {[]string{"sched"}, "what an object is depends on nothing that uses objects"},
	"api":    {[]string{"layout"}, "an interface knows no implementation"},
	"scope":  {nil, "a library of its own: it defines the interfaces that others implement"},
	"quota":  {nil, "a library of its own: it defines the interfaces that others implement"},
	"credit": {nil, "a library of its own: it defines the interfaces that others implement"},

	"quota/embedded": {[]string{"quota", "api", "layout", "sched"}, "a store in a container, whoever's it is"},

	"bdev/uring": {nil, "the kernel's interface, of use to anybody"},
	"bdev":       {[]string{"sched", "bdev/uring"}, "a device knows nothing of what lies on it"},
	"bdev/sim":   {[]string{"sched", "bdev"}, "a device knows nothing of what lies on it"},

	"ioctl":      {[]string{"layout", "api", "credit"}, "both ends of the socket use it, so it knows neither"},
	"ioctl/ring": {nil, "both ends use it; it knows memory, not what is asked"},
	"uhandle":    {[]string{"layout", "sched"}, "handles and processes; it knows no storage"},

	"uhandle/exitwatch": {[]string{"uhandle"}, "one more way to notice a death: whoever wants it passes it to the server"},

	"space":     {[]string{"layout", "sched"}, "zones only; it does no I/O"},
	"mpool/omf": {[]string{"layout", "api"}, "a form on media, shared by the engine and its checker; it does no I/O"},
	"mblock": {
		[]string{"sched", "layout", "api", "bdev", "space"},
		"never mlog: it commits through an interface that it defines",
	},
	"mlog": {
		[]string{"sched", "layout", "api", "bdev", "space"},
		"never mblock: a log holds records, not objects",
	},
	"mpool": {
		[]string{"sched", "layout", "api", "bdev", "space", "mblock", "mlog", "mpool/omf"},
		"a pool knows no client, session, handle table or process",
	},
	"mpool/check": {
		[]string{"sched", "layout", "api", "bdev", "space", "mblock", "mlog", "mpool/omf"},
		"never mpool: it shares the formats, not the recovery that it is to check",
	},

	"server": {
		[]string{
			"sched", "layout", "api", "scope", "quota", "quota/embedded", "credit", "bdev", "ioctl", "ioctl/ring", "uhandle", "space",
			"mblock", "mlog", "mpool", "mpool/omf", "mpool/check",
		},
		"the one place where pool, handles, scopes, quotas and credits meet; not the simulated device, not its own client",
	},
	"client":       {[]string{"ioctl", "ioctl/ring", "api", "credit", "layout"}, "a client process must not carry an engine"},
	"cmd/mpoold":   {[]string{"server", "uhandle/exitwatch"}, "flags and wiring only"},
	"cmd/mpoolctl": {[]string{"client", "mpool/check", "api", "layout"}, "the client's interface and the offline checker"},
}

// closures says what may stand below a package, however far.
var closures = map[string]rule{
	"client": {
		[]string{"client", "ioctl", "ioctl/ring", "api", "credit", "layout", "sched"},
		"a client process must not carry an engine, not even by way of others",
	},
	"ioctl": {
		[]string{"ioctl", "api", "credit", "layout", "sched"},
		"client imports it",
	},
}

// engine lists the packages that must run in a simulation.
var engine = []string{
	"layout", "space", "mblock", "mlog", "mpool", "mpool/omf", "mpool/check", "bdev", "bdev/sim",
}

// exempt lists files of the engine that drive real devices, with what they
// need of the real world and why. Only the named things are allowed in them.
var exempt = map[string]exemption{
	"bdev/buffer.go": {
		[]string{"sync"},
		"a memory allocator below everything: its lock is held for a few instructions and never across a call into sched, and which address a buffer has decides nothing",
	},
	"bdev/engine_uring.go": {
		[]string{"go"},
		"io_uring only: somebody must reap what nobody waits for",
	},
	"bdev/engine_uring_reap.go": {
		[]string{"runtime.Gosched", "context.AfterFunc"},
		"io_uring only: waits in the kernel, which a real context interrupts",
	},
	"bdev/workers.go": {
		[]string{"go"},
		"pread and pwrite block a thread each",
	},
}
