//go:build !invariants

package space

// trackStates is false: only maps in simulations keep each zone's state.
const trackStates = false
