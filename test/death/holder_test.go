package death

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// holder is a client of the library's that has a pool and an uncommitted
// mblock, partly written through shared memory.
type holder struct {
	c    *client.Conn
	p    api.Pool
	b    api.Mblock
	data []byte
}

func newHolder() *holder {
	ctx := context.Background()
	h := &holder{data: make([]byte, 400<<10)}
	fill(h.data, 5)
	h.c = try(client.Dial(ctx, client.Options{Socket: os.Getenv(envSocket)}))
	h.p = try(h.c.OpenPool(ctx, poolName))
	h.b = try(h.p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	try(h.b.Write(ctx, h.data))
	return h
}

// look reads what was written.
func (h *holder) look() {
	got := make([]byte, len(h.data))
	if try(h.b.ReadAt(got, 0)); !bytes.Equal(got, h.data) {
		panic("other bytes than were written")
	}
}

// use writes more and reads all.
func (h *holder) use() {
	h.look()
	more := make([]byte, 8192)
	fill(more, 6)
	try(h.b.Write(context.Background(), more))
	h.data = append(h.data, more...)
	h.look()
}

// order reads a line from the test.
func order() string {
	return strings.TrimSpace(try(bufio.NewReader(os.Stdin).ReadString('\n')))
}

// threadsMain ends the thread that connected, and then the first one.
func threadsMain() {
	// The program begins on the first thread, and most likely is there still.
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		say("not the first thread")
		return
	}
	mayGo := make(chan struct{})
	go withoutFirstThread(mayGo)
	// As a system call that blocks for ever: the runtime gives its work to
	// others when this thread is gone.
	<-mayGo
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// withoutFirstThread is the rest of threadsMain's process.
func withoutFirstThread(mayGo chan struct{}) {
	made := make(chan *holder)
	tid := make(chan int, 1)
	go connectAndExit(made, tid)
	h, connected := <-made, <-tid
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", connected)); err != nil {
			break
		}
		runtime.Gosched()
	}
	h.use()
	say("the thread that connected is gone")
	close(mayGo)
	for !strings.Contains(string(try(os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getpid())))), ") Z ") {
		runtime.Gosched()
	}
	say("the first thread is gone")
	order()
	h.use()
	say("used")
	forever()
}

// connectAndExit makes a holder and ends the thread that it was made on, which
// is not the process's first one.
func connectAndExit(made chan *holder, tid chan int) {
	// Whoever is locked to a thread and ends takes the thread along.
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		go connectAndExit(made, tid)
		select {} // keeps this thread from it
	}
	tid <- unix.Gettid()
	made <- newHolder()
}
