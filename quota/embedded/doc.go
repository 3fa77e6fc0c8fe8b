// Package embedded is a store of quotas (see package quota) in a metadata container:
// the records of a pool's quotas lie in the pool, and no other server is needed.
//
// All records are in memory too, as [quota.Books]. A change is appended to the
// container, then made in memory, in one turn, so that the order of the log is the
// order of changes; then its caller waits until the log is durable that far. Those who
// wait together share a flush. What others see meanwhile is not durable yet, but
// whatever they do with it comes later in the log: after a crash the log is a prefix,
// which has both, or the first, or neither. When the log cannot be written the store
// fails for good, and is opened anew.
//
// # Records
//
// A record of the container is one transaction: all of it or none. Numbers are little
// endian; a text is its length, one byte, and so many bytes of UTF-8.
//
//	record:  | 0: version (1) | 1: reserved, 0 | 2: uint32, number of changes | changes ... |
//	change:  | 0: type | 1: reserved, 0 | 2: uint32, length of the body | body |
//
//	type          body
//	1 class       | unit 1 | flags 1: bit 0 external | total 8 | default 8 | min 8 | max 8 | step 8 | name |
//	2 no class    | name |
//	3 owner       | name | parent |
//	4 limit       | limit 8 | owner | class |
//	5 no limit    | owner | class |
//	6 claim       | id 8 | parent 8 | expires 8 | state 1 | amounts 1 | requests 1 | 0 1 | owner | real |
//	              |   amounts times: n 8, class | requests times: sum 8, id |
//	7 no claim    | id 8 | sum 8 | request |
//	8 next id     | id 8 |
//	9 ended       | id 8 | sum 8 | request |
//
// Limits are -1 when there is none. expires is in milliseconds since 1970, 0 of a claim
// that is held. 7 removes a claim; if request is not empty, that request is remembered,
// as those of the claim are. 8 and 9 come from compactions: no id below the next is
// given again; the request is remembered of a claim that has ended.
//
// Changes are upserts by name and id, and removing what is not there changes nothing:
// what a compaction has written and what went on meanwhile overlap.
//
// # Room
//
// A claim is taken only if there is room left for its end, and for that of all others:
// releases always work. The log is compacted, by a task of the store's, when it is
// well filled with what no longer counts.
//
// # Lock order
//
// Store.mu is taken before what [Options.External] takes. The turn is held across an
// append, and not across a flush.
package embedded
