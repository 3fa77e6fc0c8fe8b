// Package omf is the on-media form of a pool's superblock and of the records
// of its metadata log. All numbers are little-endian. Reserved bytes are
// written zero and verified zero: a future version that uses them raises a
// feature bit.
//
// # Superblock
//
// Each drive carries three copies: at byte 0, at 1 MiB, and at the last 4 KiB
// of the size recorded in it. A copy is 4096 bytes under one checksum.
//
//	   0        8         12      16           32            48
//	   +--------+---------+-------+------------+-------------+------------+
//	   | magic  | version | copy  | pool uuid  | drive uuid  | generation |
//	   +--------+---------+-------+------------+-------------+------------+
//	  56        64          72          80         88
//	   +--------+-----------+-----------+----------+-----------------------+
//	   | epoch  | incompat  | ro compat | compat   | name, 64 B, zero ended|
//	   +--------+-----------+-----------+----------+-----------------------+
//	 152     154      156     160       168    170      176
//	   +------+--------+-------+---------+------+--------+-----------------+
//	   | slot | drives | state | created | meta | 0      | log A, log B    |
//	   +------+--------+-------+---------+------+--------+-----------------+
//	 224          512                                3584        4092
//	   +----------+----------------------------------+-----------+---------+
//	   | 0        | drive table: 64 entries of 48 B  | 0         | crc32c  |
//	   +----------+----------------------------------+-----------+---------+
//
//	log (24 B):    birth 8 | start 8 (4 KiB blocks) | blocks 4 | 0 4
//	drive (48 B):  slot 2 | class 1 | state 1 | zone log2 1 | sector log2 1 |
//	               0 2 | uuid 16 | size 8 (bytes) | end copy 8 (byte offset) | 0 8
//
// The generation rises with every change and the highest valid one over all
// copies of all drives wins. The epoch is raised by every activation before its
// first write, by any step. A slot is never used again for another drive.
//
// The three feature words say what a reader must know: an unknown bit in
// incompat refuses the pool, one in ro compat allows reading only, one in
// compat is ignored.
//
// # Metadata record
//
// A record of the metadata log is one transaction: it happens whole or not.
//
//	0         1        2       4
//	+---------+--------+-------+----------------------------------------+
//	| version | 0      | count | operations                             |
//	+---------+--------+-------+----------------------------------------+
//
//	operation:  type 1 | flags 1 | length 2 (of the body) | body
//
//	 1 create     id 8 | birth 8 | slot 2 | sums 2 | blocks 4 | start 8 | written 8 |
//	              capacity 8 | owner 4 | 0 4 | tag 8 | created 8 (Unix ms) |
//	              generation 8 | partner 8 | sum 4 ...
//	 2 delete     id 8 | birth 8
//	 3 erase      id 8 | birth 8 | generation 8
//	 4 update     id 8 | birth 8 | owner 4 | 0 4 | tag 8
//	 5 relocate   id 8 | birth 8 | slot 2 | 0 2 | blocks 4 | start 8
//	 6 root       id 8 (0: unset) | name
//	 7 owner      index 4 | parent 4 | name
//	 8 drive      slot 2 | class 1 | state 1 | zone log2 1 | sector log2 1 | 0 2 | uuid 16 | size 8
//	 9 property   key 2 | value
//	10 counter    next id 8 | next birth 8
//
// The one flag is bit 0 of a create, of an mblock with checksums: its data was
// written and not flushed before the record was, and became durable with it.
// Where nothing says that the record was durable, the data may not be there; then
// the object never was.
//
// start and blocks are in 4 KiB blocks; written and capacity in bytes. A
// counter operation promises that no id or birth stamp at or above its numbers
// has been given yet; numbers below may have been.
package omf
