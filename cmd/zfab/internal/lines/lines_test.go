package lines

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// What is written in a format is read as it was, but that raw lines end at their
// newlines.
func TestThereAndBack(t *testing.T) {
	bodies := []string{"", "plain", "with \"quotes\" and <brackets>", "two\nlines", "\x00\xff\xfe", "ümläut", strings.Repeat("x", 70_000)}
	for _, format := range Formats {
		var b bytes.Buffer
		w := NewWriter(&b, format)
		for _, body := range bodies {
			if err := w.Write(Line{}, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		r := NewReader(&b, format, 1<<20)
		for _, body := range bodies {
			for _, want := range split(body, format) {
				_, got, err := r.Read()
				if err != nil || string(got) != want {
					t.Fatalf("%s: %.40q, %v, want %.40q", format, got, err, want)
				}
			}
		}
		if _, _, err := r.Read(); err != io.EOF {
			t.Errorf("%s: %v behind the last", format, err)
		}
	}
}

func split(body string, format Format) []string {
	if format == Raw {
		return strings.Split(body, "\n")
	}
	return []string{body}
}

func TestWhatIsWritten(t *testing.T) {
	for _, c := range []struct {
		format Format
		line   Line
		body   string
		want   string
	}{
		{Raw, Line{From: "n1/0"}, "a", "a\n"},
		{Raw, Line{Topic: "x.y"}, "a b", "a b\n"},
		{Hex, Line{}, "a\n", "610a\n"},
		{JSON, Line{From: "n1/0", Deliveries: 2}, "a<b", `{"from":"n1/0","deliveries":2,"text":"a<b"}` + "\n"},
		{JSON, Line{}, "\xff", `{"base64":"/w=="}` + "\n"},
		{JSON, Line{Topic: "t"}, "", `{"topic":"t","text":""}` + "\n"},
	} {
		var b bytes.Buffer
		if err := NewWriter(&b, c.format).Write(c.line, []byte(c.body)); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v, want %q", c.format, b.String(), err, c.want)
		}
	}
}

func TestLinesThatAreNoMessages(t *testing.T) {
	for _, c := range []struct {
		format      Format
		text, wants string
	}{
		{Hex, "61\n6\n", "line 2 of the input: encoding/hex: odd length hex string"},
		{Hex, "6g\n", "line 1 of the input: encoding/hex: invalid byte"},
		{JSON, "\n{}\n", `line 2 of the input: give "text" or "base64"`},
		{JSON, `{"text":"a","base64":""}`, `line 1 of the input: give "text" or "base64"`},
		{JSON, `{"txt":"a"}`, `line 1 of the input: json: unknown field "txt"`},
		{JSON, `{"text":"a"} {"text":"b"}`, "line 1 of the input: more than one object"},
		{JSON, `nonsense`, "line 1 of the input: invalid character"},
		{Raw, strings.Repeat("x", 200), "line 1 of the input: longer than a message may be, 100 bytes"},
		{Hex, strings.Repeat("6", 300), "longer than a message may be"},
	} {
		r := NewReader(strings.NewReader(c.text), c.format, 100)
		var err error
		for err == nil {
			_, _, err = r.Read()
		}
		var bad *LineError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%s %.20q: %v, want %q", c.format, c.text, err, c.wants)
		}
	}
}

func TestEndsOfLines(t *testing.T) {
	r := NewReader(strings.NewReader("a\r\n\nlast"), Raw, 100)
	for _, want := range []string{"a", "", "last"} {
		if _, got, err := r.Read(); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, _, err := r.Read(); err != io.EOF {
		t.Errorf("%v", err)
	}
}
