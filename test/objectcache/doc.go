// Package objectcache tests the cache of objects of the client library between
// processes: some read through theirs, another one deletes mblocks and makes others
// in their place.
package objectcache
