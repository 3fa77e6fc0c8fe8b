package rot

import (
	"context"
	"fmt"
	"strconv"

	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// class is what a page of the drive is.
type class string

const (
	superblock0   class = "superblock 0"
	superblock1   class = "superblock 1"
	superblock2   class = "superblock 2"
	metaSlot      class = "metadata slot"
	metaPage      class = "metadata page"
	logSlot       class = "log slot"
	logPage       class = "log page"
	containerSlot class = "container slot"
	containerPage class = "container page"
	data          class = "data"
	sums          class = "checksum page"
	leftover      class = "leftover"   // of a log: never written, or of no account
	free          class = "free space" // also what objects have and do not use
)

// must is what a change of a page may lead to: nothing, or to be detected (of
// which the exception is part). A container's page may belong to the log that was
// replaced.
var must = map[class]struct{ whole, detected bool }{
	superblock0: {whole: true}, superblock1: {whole: true}, superblock2: {whole: true},
	metaSlot: {whole: true}, logSlot: {whole: true}, containerSlot: {whole: true},
	metaPage: {detected: true}, logPage: {detected: true}, containerPage: {whole: true, detected: true},
	data: {detected: true}, sums: {detected: true},
	leftover: {whole: true}, free: {whole: true},
}

// spot is where on which drive something is.
type spot struct {
	drive int
	class class
}

func (s spot) String() string {
	if s.drive == 0 {
		return string(s.class)
	}
	return "second drive's " + string(s.class)
}

// spots says where the pages of each class are, by drive.
type spots map[spot][]int64

// classify says of each page what it is. Drives are numbered by their slots.
func classify(ctx context.Context, d sim.Rack) (spots, error) {
	drives := make([][]class, len(d))
	for i := range drives {
		pages := make([]class, d[i].Size()/pageBytes)
		for i := range pages {
			pages[i] = free
		}
		pages[0], pages[omf.SecondCopyOffset/pageBytes], pages[len(pages)-1] = superblock0, superblock1, superblock2
		drives[i] = pages
	}
	objects := make(map[string]*check.Line)
	var meta [][2]int
	err := check.Dump(ctx, d.Paths(), checked(d), func(l *check.Line) error {
		switch {
		case l.Type == "log":
			meta = append(meta, [2]int{number(l, "offset") / pageBytes, number(l, "blocks")})
		case text(l, "op") == "create":
			objects[text(l, "id")] = l
		case text(l, "op") == "delete":
			delete(objects, text(l, "id"))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(meta) != 2 {
		return nil, fmt.Errorf("%d metadata logs", len(meta))
	}
	active := max(generation(d[0], meta[0]), generation(d[0], meta[1]))
	for _, m := range meta {
		classifyLog(d[0], drives[0], m, metaSlot, metaPage, generation(d[0], m) == active)
	}
	for _, l := range objects { // order does not matter
		drive := number(l, "drive")
		classifyObject(d[drive], drives[drive], l)
	}
	found := make(spots)
	for n, pages := range drives {
		for i, c := range pages {
			found[spot{n, c}] = append(found[spot{n, c}], int64(i)*pageBytes)
		}
	}
	return found, nil
}

func text(l *check.Line, name string) string {
	for _, f := range l.Fields {
		if f.Name == name {
			return fmt.Sprint(f.Value)
		}
	}
	return ""
}

func number(l *check.Line, name string) int {
	n, err := strconv.Atoi(text(l, name))
	if err != nil {
		panic(err)
	}
	return n
}

func classifyObject(d *sim.Disk, pages []class, l *check.Line) {
	place := [2]int{number(l, "start"), number(l, "blocks")}
	switch {
	case text(l, "kind") == "mblock":
		written := number(l, "written")
		blocks := (written + pageBytes - 1) / pageBytes
		for i := range blocks {
			pages[place[0]+i] = data
		}
		if blocks > layout.MaxInlineSums {
			for i := range (blocks + mblock.PageSums - 1) / mblock.PageSums {
				pages[place[0]+blocks+i] = sums
			}
		}
	case text(l, "partner") != "":
		classifyLog(d, pages, place, containerSlot, containerPage, true)
	default:
		classifyLog(d, pages, place, logSlot, logPage, true)
	}
}

// readPage returns a page of a log, if it is one.
func readPage(d *sim.Disk, index int) (p mlog.Page, ok bool) {
	b := make([]byte, pageBytes)
	if _, err := d.ReadAt(b, int64(index)*pageBytes); err != nil {
		panic(err)
	}
	birth := layout.BirthStamp(le.Uint64(b[8:]))
	p, err := mlog.DecodePage(b, birth)
	return p, err == nil
}

// generation returns the highest generation that a log has a tail of.
func generation(d *sim.Disk, place [2]int) (g uint64) {
	for i := range mlog.SlotPages {
		if p, ok := readPage(d, place[0]+i); ok {
			g = max(g, p.Generation)
		}
	}
	return g
}

// classifyLog looks at the pages of a log: its slots, and of its final pages those
// before the newest tail, if it counts.
func classifyLog(d *sim.Disk, pages []class, place [2]int, slot, final class, counts bool) {
	current := generation(d, place)
	end := 0
	for i := range mlog.SlotPages {
		pages[place[0]+i] = slot
		if p, ok := readPage(d, place[0]+i); ok && p.Generation == current {
			end = max(end, int(p.Index))
		}
	}
	for i := mlog.SlotPages; i < place[1]; i++ {
		pages[place[0]+i] = leftover
		if counts && i-mlog.SlotPages < end {
			pages[place[0]+i] = final
		}
	}
}
