//go:build plantedbugs

package planted

// Planted is the mistake that is there now. It must not change while anything
// of flow, link or peering runs.
var Planted Bug

// Is reports whether b is planted.
func Is(b Bug) bool { return b == Planted }
