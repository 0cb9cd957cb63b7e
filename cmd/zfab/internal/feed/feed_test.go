package feed

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/lines"
)

func take(t *testing.T, f *Feed) (all []string) {
	t.Helper()
	for {
		_, body, err := f.Next(t.Context())
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(body))
	}
}

func TestLinesUpToACount(t *testing.T) {
	in := "a\nb\nc\n"
	for count, want := range map[int]string{0: "a b c", 2: "a b", 9: "a b c"} {
		f := New(Config{In: strings.NewReader(in), Format: lines.Raw, Most: 100, Count: count})
		if got := strings.Join(take(t, f), " "); got != want {
			t.Errorf("of %d: %q, want %q", count, got, want)
		}
	}
}

func TestMadeUp(t *testing.T) {
	f := New(Config{Made: true, Size: 28, Count: 3})
	got := take(t, f)
	if len(got) != 3 || got[2] != "abcdefghijklmnopqrstuvwxyzab" || f.Given() != 3 {
		t.Errorf("%q", got)
	}
}

func TestALineThatIsNone(t *testing.T) {
	f := New(Config{In: strings.NewReader("61\nx\n"), Format: lines.Hex, Most: 100})
	if _, body, err := f.Next(t.Context()); err != nil || string(body) != "a" {
		t.Fatalf("%q, %v", body, err)
	}
	if _, _, err := f.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

// Messages come at their times, and one that was taken late does not delay the
// next ones.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Made: true, Size: 1, Count: 5, Rate: 10})
		began := time.Now()
		for i, late := range []time.Duration{0, 250 * time.Millisecond, 0, 0, 0} {
			time.Sleep(late) // on the clock of the bubble
			if _, _, err := f.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := []time.Duration{0, 250, 250, 300, 400}[i] * time.Millisecond
			if at := time.Since(began); at != want {
				t.Errorf("message %d after %v, want %v", i, at, want)
			}
		}
	})
}

func TestNextEndsWithItsContext(t *testing.T) {
	in, end := io.Pipe()
	defer end.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := New(Config{In: in, Format: lines.Raw, Most: 100})
	if _, _, err := f.Next(ctx); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

// A message whose time is beyond what time.Duration holds is not sent at once.
func TestRateThatIsSlowerThanTimeLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Made: true, Size: 1, Rate: 1e-12})
		if _, _, err := f.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 365*24*time.Hour)
		defer cancel()
		if _, _, err := f.Next(ctx); err != context.DeadlineExceeded {
			t.Errorf("%v", err)
		}
	})
}
