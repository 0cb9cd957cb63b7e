//go:build race

package sim

// raced is true under the race detector, which is ten times slower.
const raced = true
