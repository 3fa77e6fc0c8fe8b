package restart

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves S36: mpoolctl mblock get goes on where it was when the daemon is killed and
// started again under it: it finds the mblock by its id, and the bytes are those that
// were stored.
func TestGetAcrossRestarts(t *testing.T) {
	ctl, err := daemon.BuildCtl(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := newServed(t)
	const size, step = 8 << 20, 4 << 20
	want := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(rng.Uint32())
	}
	c := d.dial()
	m, err := d.open(c).AllocMblock(t.Context(), api.AllocOptions{Capacity: size})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	get := exec.Command(ctl, "--socket", d.socket, "mblock", "get", poolName, m.ID().String())
	get.Env = append(os.Environ(), "GOMAXPROCS=1")
	get.Stderr = &errOut
	out, err := get.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := get.Start(); err != nil {
		t.Fatal(err)
	}
	// The pipe has room for little: the command waits in the middle of the mblock.
	got := make([]byte, size)
	for at := 0; at < size; at += step {
		if _, err := io.ReadFull(out, got[at:at+step]); err != nil {
			t.Fatalf("%v: %s", err, &errOut)
		}
		d.kill()
		d.start()
	}
	rest, err := io.ReadAll(out)
	if err := get.Wait(); err != nil {
		t.Errorf("%v: %s", err, &errOut)
	}
	if err != nil || len(rest) > 0 || !bytes.Equal(got, want) {
		t.Errorf("other bytes, or %d more: %v", len(rest), err)
	}
}
