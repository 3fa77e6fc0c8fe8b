// Package handover has processes hand uncommitted objects to each other through
// the real daemon, and kills them at any moment of it. It looks that every object
// was exactly one process's at every time, that what was promised is kept, and
// that nothing is left of the dead.
package handover
