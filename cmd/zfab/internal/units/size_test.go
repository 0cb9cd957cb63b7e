package units

import (
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "64": 64, "64B": 64, "1KiB": 1024, "1MiB": 1 << 20, "1.5KiB": 1536,
		"2 GiB": 2 << 30, " 8MiB ": 8 << 20, "1KB": 1000, "1kB": 1000, "3MB": 3_000_000,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestParseSizeRefuses(t *testing.T) {
	for _, text := range []string{"", "B", "MiB", "-1B", "+1B", "1e3", "0x10", "Inf", "NaN", "1.5B", "1TiB", "ten", "99999999999GiB", "1..2KiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("ParseSize(%q): %q does not name the text", text, err)
		}
	}
}

func TestSizeStringReadsBack(t *testing.T) {
	for want, text := range map[Size]string{0: "0B", 64: "64B", 1536: "1536B", 1024: "1KiB", 8 << 20: "8MiB", 3 << 30: "3GiB"} {
		if got := want.String(); got != text {
			t.Errorf("Size(%d) = %q, want %q", int64(want), got, text)
		}
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", text, got, err)
		}
	}
}

func TestForPeople(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Approximate(12), "12 B"}, {Approximate(1536), "1.50 KiB"}, {Approximate(150 << 20), "150 MiB"},
		{Count(950), "950"}, {Count(12_340), "12.3 k"}, {Count(4_560_000), "4.56 M"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
