// Package ioctl is the numbered command set between a client and the daemon:
// the operations' numbers, the form of every message, and errors on the wire.
// It does no I/O and knows neither side.
//
// Messages travel over a Unix socket of type SOCK_SEQPACKET, which keeps their
// borders: one message is one send and one receive, at most [MaxMessage] bytes.
// The client sends requests, each with a tag of its own choice that is not in
// use; the daemon works on them concurrently and answers each with one message
// that has the same number and tag. The first request is [OpHello].
//
// # Form
//
// All numbers are little-endian. Every message begins with
//
//	 0        4    6     8                 16       20   22   24
//	+--------+----+-----+-----------------+--------+----+----+
//	|  size  | op |flags|       tag       |deadline|ver |zero|
//	+--------+----+-----+-----------------+--------+----+----+
//
// where size counts the whole message in bytes, flags are [FlagReply] and
// [FlagError], deadline is in milliseconds from receipt (0: none) and ver is
// [Version]. A body follows: a fixed part, then its strings and lists in order.
//
//	string   length u16, bytes
//	list     entries u16, entries
//	window   arena u16, zero u16, offset u32, length u32
//	payload  window; if its arena is 0 its bytes end the message
//	flag     one bit of a byte; unknown bits are an error
//
// Bytes called zero are written zero and refused if they are not. A body that
// is too short, too long or out of bounds is [ErrMalformed] as a whole, and
// whoever sent it is not listened to any more. An operation that the daemon
// does not know is answered ENOTSUP and does no harm.
//
// # Data
//
// Up to [MaxInline] bytes travel within a message. More goes through an arena,
// a memory file that the daemon makes ([OpArena]), whose descriptor comes with
// the reply, and that both map. A window names bytes in it at an offset that is
// a multiple of [ArenaAlign]. The client must leave them alone from request to
// reply; what happens to them meanwhile harms nobody but its own object.
//
// # Credits
//
// Package credit says who may do what to which object, and its owners talk with
// each other over the socket ([OpCredit]): a client's owner is the debtor, the
// daemon the creditor. Each handle of a pool is one debtor from the Hello that
// comes with it. Hello (1), Renew (3), Ack (6), Borrow (7), Withdraw (8), Kept
// (12), Return (13), Raise (15) and Bye (17) go to the daemon; Welcome (2),
// Renewed (4), Gone (5), Grant (9), Refuse (10), Recall (11), Taken (14), Raised
// (16) and Waive (18) come from it, when there is something to say. What one side says at
// one time may go together if both know [FeaturePacked], which they say in hello; else each
// goes alone, and the place of more is zero. They are in order, none is lost, and none waits
// for a request that is under way; the daemon gives no lease and sends nothing twice. Types of resource are access (1), whose id is an object's,
// space (2) and activation (3); modes of access are read (1), append (2), write (4)
// and delete (8); flags are may borrow (1), may revoke (2) and try (4); codes are
// those of package credit, from busy (1) on; states of a list are granted (1), held (2),
// called back (3) and waiting (4). A refuse has the flag, and the limit that has refused, if it
// was one of the daemon's memory and both know [FeatureLimit].
//
// Who does not read what comes is fenced when the deadline of a call-back has
// passed, and when too much waits for it, its session ends. A handle whose credit
// was taken is refused with ESTALE.
//
// # Errors
//
// A reply with [FlagError] has an [Error] for a body, whatever the operation:
//
//	code u16, flag (refusal), zero 5, object u64, offset i64, want i64, have i64,
//	longest i64, op, device, detail, cause: strings; list of {pid i32, references u32};
//	with the flag: used, asked, limit i64, class, owner: strings
//
// The flag comes only to who said [FeatureRefusal] in hello: which limit refuses, of
// EDQUOT the resource class and its owner (none: all together), of EAGAIN the kind of
// resource and the scope. limit -1 is none: more cannot be counted.
//
// # Operations
//
// "h" is a handle (u64), "id" an object's id (u64). Where no reply is named it
// has an empty body.
//
//	 1 hello               min, max version u16, zero 4, features u64
//	                    →  version u16, zero 2, requests u32, features u64, handles u32,
//	                       arenas u32, default arena, all arenas, instance, session u64
//	 2 cancel              tag u64; never answered
//	 3 arena create        size u64  →  arena u16, zero 6, size u64, with a descriptor
//	 4 arena mapped        arena u16, zero 6
//	 5 close               h: gives up a handle of any kind
//	 6 version             →  protocol u16, zero 2, pid i32, daemon, go: strings
//	 7 stat                first op u16, zero 2, first drive u32, pool string
//	                    →  uptime ns, reaped u64, sessions, handles, next drive u32,
//	                       next op u16, zero 2, bytes of arenas, of these on huge pages u64,
//	                       list of operations {op u16, zero 6, count, errors, bytes,
//	                       total ns u64, 28 buckets u64}, list of drives
//	                       {reads, writes, flushes, discards, read bytes, write bytes,
//	                       errors, failed flushes u64, path}
//	 8 ring create         version u16, arena u16, offset u32, entries u32, zero 4
//	                    →  ring u16, zero 6
//	 9 ring close          ring u16, zero 6
//
//	10 pool create         zone size i64, uid, gid, mode u32, flags (force, dry run, no
//	                       activation), zero 3, name, label: strings, devices, staging: lists
//	                    →  zone size, overhead, usable i64, name, uuid: strings, drives
//	11 pool activate       flags (force, resize), zero 7, name or UUID, devices  →  as 17
//	12 pool deactivate     name
//	13 pool destroy        name
//	14 pool rename         name, new name
//	15 pool set            which u8 (uid, gid, mode, label, read verify, spare, shared), verify
//	                       u8, spare u8, shared u8, uid, gid, mode u32, name, label: strings
//	16 pool list           name to go on after
//	                    →  flag (more), zero 7, list of names
//	17 pool show           h or 0, first drive u32, zero 4, name
//	                    →  space 8 × i64 in api.Space's order, zone size, stored, mblocks,
//	                       mlogs i64, epoch u64, uid, gid, mode u32, spare u8, flags (verify,
//	                       more drives, shared), zero 10, name, uuid, label, state, health, drives:
//	                       list of {slot u16, class u8, zero, sector u32, size, free i64,
//	                       path, uuid, state, engine}
//	18 pool open           name  →  h, zero u64, zero u64
//	19 pool scrub          id (0: the metadata), place u64, bytes i64, name
//	                   →  id, place u64, verified, covered, total, objects, skipped i64,
//	                      flag (done), zero 7, list of {id, offset i64, code u16, zero 6,
//	                      device, text}
//
//	20 client list         session to go on after u64, pid i32 (0: any), zero 4
//	                   →  flag (more), zero 7, list of {session u64, connected ns, requests,
//	                      memory u64, pid i32, uid, gid, handles, uncommitted objects,
//	                      uncommitted mblocks, requests in flight u32, zero 4, name}
//	21 handle list         session, h to go on after, pid i32 (0: any), zero 4, pool or ""
//	                   →  flag (more), zero 7, list of {session u64, h, id, pid i32,
//	                      references u32, kind, state u8, flag (granted), zero 5, pool}
//	22 event next          number to go on after u64, since ns (0: any), wait ms u32, zero 4
//	                   →  last number, missed u64, list of {number u64, time ns, id, offset
//	                      i64, session u64, latency ns, pid i32, uid u32, code, signal i32,
//	                      aborted, references, reservations, credits u32, type, cause, by u8,
//	                      flag (core), zero 12, exit, free ns of CLOCK_MONOTONIC i64, pool,
//	                      device, name, text}
//	23 scope list          name to go on after, name or ""
//	                   →  flag (more), zero 7, list of {used i64, refused u64, scope, kind,
//	                      limit, origin: strings}, all kinds of a scope together
//	24 scope set           name, list of {kind, limit}  →  as 23
//
//	30 object info         h  →  object: id, length, capacity, used i64, tag u64, created ns
//	                       (0: unknown), generation, records u64, partner id, owner, refs
//	                       u32, kind, state, class u8, zero 5
//	31 object get          h  →  h, id, created ns (0: unknown)
//	32 object commit       h
//	33 object abort        h
//	34 object delete       h
//	35 commit many         h of the pool, payload of roots (as 40), list of h
//	36 object list         h, tag u64, owner u32, kind, state u8, which u8 (owner, tag), zero
//	                    →  h, zero u64, zero u64
//	37 object list next    h  →  flag (more), zero 7, list of objects as in 30
//
//	40 root set            h, payload: list of {id (0: unset), name}
//	41 root list           h, name to go on after  →  flag (more), zero 7, list of {id, name}
//	42 owner add           h, parent u32, zero 4, name  →  index u32, zero 4
//	43 owner list          h, first index u32, zero 4
//	                    →  flag (more), zero 7, list of {index, parent u32, name}
//	44 quota show          h, entries to leave out u32, what u8 (1 classes, 2 limits, 3 usage,
//	                       4 claims), zero 3, owner or ""
//	                    →  flag (more), zero 7, lists: of classes {total, default, min, max,
//	                       step i64, flags (bytes, built in), zero 7, name}; of limits
//	                       {limit i64, owner, class}; of usage {held, reserved, limit i64,
//	                       owner, class, origin}; of claims {expires ms i64 (0: held), id,
//	                       parent, owner, state, real id, list of {amount i64, class}}
//	45 quota set           h, verb u8 (1 define, 2 remove class, 3 set limit, 4 unset limit,
//	                       5 add owner), zero 7, a class as in 44, a limit as in 44 (5: owner,
//	                       the one above for a class)
//	46 quota claim         h, ttl ns i64, verb u8 (1 reserve, 2 provision, 3 resize, 4 release,
//	                       5 transfer, 6 expire), zero 7, claim (1: the one above), owner,
//	                       real id, request id, list of {amount i64, class}  →  as 44
//
//	50 mblock alloc        h, id (0: a new one), capacity i64, tag u64, owner u32, class u8,
//	                       flags (fallback, spare), zero 2  →  as 31
//	51 mblock find         h, id  →  as 31
//	52 mblock write        h, total u64, payload  →  written u32, zero 4
//	53 mblock read         h, offset i64, window
//	                    →  read u32, flags (end, data), zero 3, data unless in the arena
//	54 mblock put          h, capacity i64, tag u64, owner u32, class u8, flags (fallback,
//	                       spare), zero 2, payload  →  as 31; it is committed
//
//	60 mlog alloc          as 50
//	61 mlog find           as 51
//	62 mlog open           h  →  h, records u64, bytes i64
//	63 mlog open for read  h  →  h, id, zero u64
//	64 mlog erase          h, least generation u64
//	65 mlog append         h, flag (sync), zero 7, payload  →  record, records u64, bytes i64
//	66 mlog sync           h
//	67 mlog read           h, flag (rewind first), zero 7, window
//	                    →  length u32, flags (end, data), zero 3, next record u64, data
//	                       unless in the arena; also of an MDC's reader
//	68 mlog seek           h, record u64, flag (rewind first), zero 7
//
//	70 object grant         h, ttl ns i64  →  token 16 bytes
//	71 object revoke        h
//	72 object accept        h of the pool, token 16 bytes  →  as 31
//
//	80 mdc create          as 50  →  id
//	81 mdc open            h, id  →  h, id, zero u64
//	82 mdc delete          h, id
//	83 mdc append          as 65 without its reply
//	84 mdc sync            h
//	85 mdc open for read   h  →  h, zero u64, zero u64
//	86 mdc compact start   h
//	87 mdc compact append  as 83
//	88 mdc compact end     h
//	89 mdc compact abort   h
//	90 mdc usage           h  →  used, capacity i64
//
//	91 credit              message; never answered but with an error. With FlagReply and the tag
//	                       0 it is the daemon's, which answers nothing. A message: h of the
//	                       pool, kind, type, flags, code, level, flag (limit) u8, more u16 (messages
//	                       that follow, their h and more 0; at most 31; FeaturePacked), session, key, number,
//	                       acknowledged, seen, resource, request, amount, least u64, token 4 × u64,
//	                       version 2 × u64, within, sent ns i64, list of {first, end u64, modes u8,
//	                       zero 7}; with the flag: used, asked, limit i64, kind, scope, text: strings
//	92 credit list         id, holder, first u64 to go on after, pool
//	                    →  flag (more), zero 7, list of {id, holder, first, end, session u64,
//	                       expires ns i64 (0: never), pid i32, uid u32, token 4 × u64, modes, state
//	                       u8, zero 6}
//	93 credit revoke       h of the pool, id
package ioctl
