package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/mpool-go/mpool/api"
)

// partialManifest is a manifest while its files are being stored: a file beside
// it that grows by a line for every file that is committed. The nil value is
// for puts without a manifest and does nothing.
type partialManifest struct {
	final string
	file  *os.File
}

// newPartialManifest begins one. It fails when another put is writing it.
func newPartialManifest(final string) (*partialManifest, error) {
	f, err := os.OpenFile(final+".partial", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, api.Errorf(api.EEXIST, "",
			"%s.partial is there: another put is writing it, or one has died; it lists what that one stored: when it is not needed, remove it",
			final)
	}
	if err != nil {
		return nil, err
	}
	p := &partialManifest{final: final, file: f}
	if _, err := f.WriteString(manifestHeader + "\n"); err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

func (p *partialManifest) path() string { return p.file.Name() }

// add appends files that are committed.
func (p *partialManifest) add(entries []manifestEntry) error {
	if p == nil || len(entries) == 0 {
		return nil
	}
	var b []byte
	for _, e := range entries {
		b = e.appendLine(b)
	}
	_, err := p.file.Write(b)
	return err
}

// finish puts the whole manifest, in the order of the files, durably in its
// place. When it fails the partial one is still there.
func (p *partialManifest) finish(entries []manifestEntry) error {
	if p == nil {
		return nil
	}
	f, err := os.OpenFile(p.final+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = errors.Join(writeManifest(f, entries), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), p.final)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	p.remove()
	return nil
}

// keep leaves the list for whoever looks into a put that failed.
func (p *partialManifest) keep() {
	if p != nil {
		// Its lines are written already and nothing was promised to be durable.
		_ = p.file.Close()
	}
}

// remove gives the list up.
func (p *partialManifest) remove() {
	if p != nil {
		p.keep()
		// A list of mblocks that are no more harms nobody.
		_ = os.Remove(p.path())
	}
}
