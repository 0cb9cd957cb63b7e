package logs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestHushLeavesErrors(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		var out bytes.Buffer
		l := New(&out, verbose)
		node := l.With("node", "n1")
		node.Debug("detail")
		node.Warn("before")
		Hush(l)
		node.Warn("after")
		node.Error("trouble")
		for text, want := range map[string]bool{"detail": verbose, "before": true, "after": verbose, "trouble": true} {
			if strings.Contains(out.String(), text) != want {
				t.Errorf("verbose %v: %q told: %v, want %v", verbose, text, !want, want)
			}
		}
	}
	Hush(slog.New(slog.DiscardHandler)) // another's logger stays as it is
}
