package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// parseID reads an object id of the command line. A root's name cannot be read
// without the pool: see objectID.
func parseID(s string) (layout.ObjectID, error) {
	id, err := layout.ParseObjectID(s)
	if err != nil {
		return 0, usageError{text: err.Error()}
	}
	return id, nil
}

// objectID reads an object id or, after @, the name of a root of p.
func objectID(ctx context.Context, p api.Pool, s string) (layout.ObjectID, error) {
	name, isRoot := strings.CutPrefix(s, "@")
	if !isRoot {
		return parseID(s)
	}
	roots, err := p.Roots(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range roots {
		if r.Name == name {
			return r.ID, nil
		}
	}
	return 0, api.Errorf(api.ENOENT, "", "the pool has no root named %q", name)
}

// exampleID is an id for examples.
func exampleID(kind string) string {
	k := layout.KindMblock
	if kind == layout.KindMlog.String() {
		k = layout.KindMlog
	}
	return layout.NewObjectID(k, 1).String()
}

// examples makes the text of examples from command lines.
func examples(lines ...string) string {
	return "  " + strings.Join(lines, "\n  ")
}

// checkIDs finds ids that cannot be read before anything is done.
func checkIDs(args []string) error {
	for _, s := range args {
		if strings.HasPrefix(s, "@") {
			continue
		}
		if _, err := parseID(s); err != nil {
			return err
		}
	}
	return nil
}

// objectView is an object as it is shown.
type objectView struct {
	ID         string  `json:"id"`
	Kind       string  `json:"kind"`
	State      string  `json:"state"`
	Length     int64   `json:"length"`
	Capacity   int64   `json:"capacity"`
	UsedBytes  int64   `json:"used_bytes"`
	Class      string  `json:"class"`
	Owner      string  `json:"owner"`
	OwnerIndex uint32  `json:"owner_index"`
	Tag        uint64  `json:"tag"`
	Refs       uint32  `json:"refs"`
	Created    string  `json:"created"`
	Generation *uint64 `json:"generation,omitempty"` // mlogs only, as the next two
	Records    *uint64 `json:"records,omitempty"`
	Partner    string  `json:"partner,omitempty"`
	System     string  `json:"system,omitempty"` // the pool's own, no tenant's: the root that names it
}

func newObjectView(i api.ObjectInfo, o owners) objectView {
	v := objectView{
		ID: i.ID.String(), Kind: i.Kind.String(), State: i.State.String(), Length: i.Length,
		Capacity: i.Capacity, UsedBytes: i.Used, Class: i.Class.String(),
		Owner: o.byIndex[i.Owner], OwnerIndex: i.Owner, Tag: i.Tag, Refs: i.Refs,
		Created: formatTime(i.Created), System: o.systemOf(&i),
	}
	if i.Kind == layout.KindMlog {
		v.Generation, v.Records = &i.Generation, &i.Records
		if i.Partner != 0 {
			v.Partner = i.Partner.String()
		}
	}
	return v
}

// ownerText is whose it is, as people read it.
func (v objectView) ownerText() string {
	if v.System != "" {
		return "(pool)"
	}
	return cmp.Or(v.Owner, "-")
}

func (v objectView) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.ID)
	}
	pairs := []string{
		"id", v.ID, "kind", v.Kind, "state", v.State, "length", showBytes(v.Length),
		"capacity", showBytes(v.Capacity), "used", showBytes(v.UsedBytes), "class", v.Class,
		"owner", fmt.Sprintf("%s (%d)", v.ownerText(), v.OwnerIndex), "tag", strconv.FormatUint(v.Tag, 10),
		"references", strconv.FormatUint(uint64(v.Refs), 10), "created", v.Created,
	}
	if v.Generation != nil {
		pairs = append(pairs, "generation", strconv.FormatUint(*v.Generation, 10),
			"records", strconv.FormatUint(*v.Records, 10))
	}
	if v.Partner != "" {
		pairs = append(pairs, "partner", v.Partner)
	}
	return writeFields(w, pairs...)
}

// showBytes writes a size for people and exactly.
func showBytes(n int64) string {
	if n < 1024 {
		return formatSize(n)
	}
	return fmt.Sprintf("%s (%d)", formatSize(n), n)
}
