//go:build invariants

package space

// trackStates makes every Map keep each zone's state.
const trackStates = true
