//go:build !linux

package runner

// ConnectionsBetween cannot tell: there is no /proc.
func ConnectionsBetween([]int) (int, bool) { return 0, false }
