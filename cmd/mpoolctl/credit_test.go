package main

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

var creditObject = layout.NewObjectID(layout.KindMblock, 7)

// EachCredit gives a reader who was called back, and a writer who waits.
func (d *fakeDaemon) EachCredit(_ context.Context, pool string) iter.Seq2[client.CreditInfo, error] {
	return func(yield func(client.CreditInfo, error) bool) {
		if err := d.err; err != nil {
			yield(client.CreditInfo{}, err)
			return
		}
		if d.pools[pool] == nil {
			yield(client.CreditInfo{}, api.Errorf(api.ENOENT, "", "there is no active pool %q", pool))
			return
		}
		at := client.CreditPlace{Object: creditObject, Holder: 1, First: 4096}
		reads := client.CreditInfo{
			CreditCursor: at, End: 8192, Modes: client.CreditRead | client.CreditAppend, State: client.CreditCalledBack,
			Session: 3, PID: 4711, UID: 1000, Expires: time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC),
		}
		reads.Token[0] = 12
		waits := client.CreditInfo{CreditCursor: at, End: client.CreditEnd, Modes: client.CreditWrite, State: client.CreditWaiting, Session: 4, PID: 9}
		_ = yield(reads, nil) && yield(waits, nil)
	}
}

// AcquireCredit refuses.
func (p *fakePool) AcquireCredit(_ context.Context, id layout.ObjectID, r client.CreditRequest) (*client.Hold, error) {
	return nil, &api.Error{Code: api.EBUSY, Object: id, Detail: fmt.Sprintf("asked for %+v", r)}
}

// GiveBackCredit does nothing.
func (p *fakePool) GiveBackCredit(layout.ObjectID) {}

// RevokeCredit does nothing.
func (p *fakePool) RevokeCredit(context.Context, layout.ObjectID) error { return nil }

func TestCreditVerbs(t *testing.T) {
	id := creditObject.String()
	reader := `{"resource":"` + id + `","pool":"data","holder":"client:1000/4711","pid":4711,"uid":1000,"session":3,` +
		`"mode":"read+append","range":"4096:4096","state":"called_back","token":"12","expires":"2026-11-21T09:30:00Z"}`
	for line, want := range map[string]string{
		"credit list": `OBJECT POOL HOLDER MODE RANGE STATE TOKEN EXPIRES
` + id + ` data client:1000/4711 read+append 4096:4096 called_back 12 2026-11-21T09:30:00Z
` + id + ` data client:0/9 write 4096: waiting - -
`,
		"--json credit list data": reader + `
{"resource":"` + id + `","pool":"data","holder":"client:0/9","pid":9,"uid":0,"session":4,` +
			`"mode":"write","range":"4096:","state":"waiting","token":"","expires":null}
`,
		"--json credit revoke data --yes " + id: "[" + reader + "]\n",
		"credit revoke data --yes " + id:        id + " of data: read+append 4096:4096, from client:1000/4711\n",
		"-q credit revoke data --yes " + id:     id + "\n",
	} {
		out := ok(t, newFakeDaemon("data"), strings.Fields(line)...)
		if !strings.HasPrefix(line, "-") {
			var rows []string
			for row := range strings.Lines(out) {
				rows = append(rows, strings.Join(strings.Fields(row), " ")+"\n")
			}
			out = strings.Join(rows, "")
		}
		if out != want {
			t.Errorf("%s:\n%s\nwant:\n%s", line, out, want)
		}
	}
}

func TestCreditRefused(t *testing.T) {
	id := creditObject.String()
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"credit acquire data --try --mode write --range 4KiB:1KB " + id: {
			exitFailed, "asked for {Modes:4 Offset:4096 Length:1000 Try:true Local:false}; held by process 4711 (1 reference) (EBUSY)",
		},
		"credit acquire data --timeout 3s --mode append --range 4KiB: " + id: {exitFailed, "{Modes:2 Offset:4096 Length:0 Try:false"},
		"credit acquire data " + id:                    {exitFailed, "{Modes:1 Offset:0 Length:0"},
		"credit acquire data --try --timeout 1s " + id: {exitUsage, "none of the others can be"},
		"credit acquire data --timeout -1s " + id:      {exitUsage, "above 0"},
		"credit acquire data --mode execute " + id:     {exitUsage, "want read, append, write or delete"},
		"credit acquire data --range 4096 " + id:       {exitUsage, "want OFFSET:LENGTH"},
		"credit acquire data --range 0:0 " + id:        {exitUsage, "of no bytes"},
		"credit acquire data --range 8EiB:1 " + id:     {exitUsage, "size"},
		"credit acquire data nothing":                  {exitUsage, "nothing"},
		"credit revoke data " + id:                     {exitUsage, "give --yes"},
		"credit release data " + id:                    {exitFailed, "no credit acquire command holds a credit on it"},
		"credit list nowhere":                          {exitFailed, "ENOENT"},
	} {
		r := ctl(t, newFakeDaemon("data"), "", strings.Fields(line)...)
		if r.code != want.code || !strings.Contains(r.errOut, want.text) {
			t.Errorf("%s: exit %d\n%s\nwant %d and %q", line, r.code, r.errOut, want.code, want.text)
		}
	}
}

// keepsCredit is a credit whose end a test decides.
type keepsCredit struct {
	wanted, lost chan struct{}
	released     int
}

func (h *keepsCredit) Wanted() <-chan struct{} { return h.wanted }
func (h *keepsCredit) Lost() <-chan struct{}   { return h.lost }

func (h *keepsCredit) Release() error {
	h.released++
	return nil
}

func TestKeepCredit(t *testing.T) {
	a := &app{stdout: &strings.Builder{}, stderr: &strings.Builder{}}
	h := &keepsCredit{wanted: make(chan struct{}), lost: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	close(h.wanted)
	told := 0
	err := a.keepCredit(ctx, h, func() error {
		told++
		cancel()
		return nil
	})
	if err != nil || told != 1 || h.released != 1 {
		t.Errorf("interrupted: %v, told %d times that it is wanted, released %d times", err, told, h.released)
	}
	close(h.lost)
	h.wanted = nil
	if err := a.keepCredit(t.Context(), h, nil); api.CodeOf(err) != api.ESTALE || h.released != 2 {
		t.Errorf("lost: %v, released %d times", err, h.released)
	}
}

func TestWhoseAcquireItIs(t *testing.T) {
	for words, want := range map[string]bool{
		"mpoolctl\x00credit\x00acquire\x00data\x00": true, "/x/mpoolctl\x00--json\x00credit\x00acquire\x00": true,
		"mpoolctl\x00credit\x00list\x00": false, "mpoolctl\x00credit": false, "sh\x00credit\x00acquire\x00": false, "": false,
	} {
		if isAcquire([]byte(words)) != want {
			t.Errorf("%q: %v", words, !want)
		}
	}
	if is, err := endAcquire(t.Context(), int32(os.Getpid())); is || err != nil {
		t.Errorf("this test is a credit acquire command: %v, %v", is, err)
	}
}
