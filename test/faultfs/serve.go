package faultfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fileName is the name of a file system's only file.
const fileName = "drive"

// Inode numbers.
const (
	rootNode = fuse.FUSE_ROOT_ID
	fileNode = rootNode + 1
)

// punchHole is what a discard of a file asks for.
const punchHole = 0x01 | 0x02 // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE

// files serves a file system of one file. Its methods run at the same time;
// what the embedded one does is ENOSYS.
type files struct {
	fuse.RawFileSystem

	d *Drive
}

// remember is how long the kernel may keep names and attributes: they never
// change.
const remember = 3600 // seconds

func (f *files) attr(node uint64, a *fuse.Attr) {
	a.Ino, a.Nlink, a.Mode = node, 1, syscall.S_IFDIR|0o700
	if node == fileNode {
		a.Mode, a.Size = syscall.S_IFREG|0o600, uint64(f.d.size)
		a.Blocks, a.Blksize = a.Size/512, 4096
	}
}

// Lookup finds the file.
func (f *files) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId != rootNode || name != fileName {
		return fuse.ENOENT
	}
	out.NodeId, out.Generation, out.EntryValid, out.AttrValid = fileNode, 1, remember, remember
	f.attr(fileNode, &out.Attr)
	return fuse.OK
}

// GetAttr describes the file or the folder.
func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = remember
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// SetAttr changes nothing. The size is fixed; other attributes may be asked for
// by who does not mind.
func (f *files) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.Valid&fuse.FATTR_SIZE != 0 {
		return fuse.EPERM
	}
	out.AttrValid = remember
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// Open lets nothing be cached, and reads and writes go on at the same time.
func (f *files) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// OpenDir opens the folder.
func (f *files) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// ReadDir lists the folder.
func (f *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.Offset == 0 {
		out.AddDirEntry(fuse.DirEntry{Name: fileName, Ino: fileNode, Mode: syscall.S_IFREG})
	}
	return fuse.OK
}

// Read reads sectors.
func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, errno := f.d.read(buf[:min(len(buf), int(in.Size))], int64(in.Offset))
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes sectors.
func (f *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, errno := f.d.write(data, int64(in.Offset))
	return uint32(n), fuse.Status(errno)
}

// Fsync flushes.
func (f *files) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.Status(f.d.flush()) }

// Fallocate discards.
func (f *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Mode != punchHole {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return fuse.Status(f.d.discard(int64(in.Offset), int64(in.Length)))
}
