// Package units reads and writes the units of topology files and flags: sizes
// in bytes, with decimal (KB, MB, GB) and binary (KiB, MiB, GiB) multiples.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Size is a number of bytes.
type Size int64

const (
	Byte Size = 1
	KiB       = 1024 * Byte
	MiB       = 1024 * KiB
	GiB       = 1024 * MiB
)

// suffixes is ordered so that no suffix hides behind a shorter one ("B" is the
// end of all of them).
var suffixes = []struct {
	text  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"B", 1},
}

// ParseSize reads "64B", "1MiB", "1.5 GiB" or a plain number of bytes. The
// result is a whole number of bytes and not negative.
func ParseSize(text string) (Size, error) {
	number, unit := strings.TrimSpace(text), 1.0
	for _, s := range suffixes {
		if rest, ok := strings.CutSuffix(number, s.text); ok {
			number, unit = strings.TrimSpace(rest), s.bytes
			break
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !plain(number) {
		return 0, fmt.Errorf("%q is not a size: write a number with B, KiB, MiB or GiB, like 64B or 1MiB", text)
	}
	bytes := value * unit
	if bytes >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	if bytes != math.Trunc(bytes) {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", text)
	}
	return Size(bytes), nil
}

// plain keeps out what ParseFloat takes and a size should not be written as:
// signs, exponents, hexadecimal, Inf and NaN.
func plain(number string) bool {
	return number != "" && strings.Trim(number, "0123456789.") == ""
}

// String writes s with the largest binary multiple that divides it: "1MiB",
// "64B", "1536B".
func (s Size) String() string {
	for _, m := range []struct {
		size Size
		text string
	}{{GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if s != 0 && s%m.size == 0 {
			return fmt.Sprintf("%d%s", s/m.size, m.text)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// Approximate writes a count of bytes for people: three digits at most, binary
// multiples.
func Approximate(bytes float64) string {
	for _, m := range []struct {
		size float64
		text string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if bytes >= m.size {
			return fmt.Sprintf("%.*f %s", decimals(bytes/m.size), bytes/m.size, m.text)
		}
	}
	return fmt.Sprintf("%.0f B", bytes)
}

// Count writes a number for people: 950, 12.3 k, 4.56 M.
func Count(n float64) string {
	for _, m := range []struct {
		size float64
		text string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= m.size {
			return fmt.Sprintf("%.*f %s", decimals(n/m.size), n/m.size, m.text)
		}
	}
	return fmt.Sprintf("%.0f", n)
}

func decimals(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	}
	return 2
}
