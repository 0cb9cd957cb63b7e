package lanes

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestMessagesOfLanes(t *testing.T) {
	head := func(kind Kind) []byte { return Append(nil, kind, 1<<40+2) }
	if want := "m\x00\x00\x01\x00\x00\x00\x00\x02"; string(head(Message)) != want {
		t.Fatalf("% x, want % x", head(Message), want)
	}
	for name, tt := range map[string]struct {
		frames [][]byte
		wrong  string
	}{
		"open":                  {[][]byte{head(Open), []byte("me")}, ""},
		"open without identity": {[][]byte{head(Open), nil}, ""},
		"message":               {[][]byte{head(Message), []byte("a")}, ""},
		"message with envelope": {[][]byte{head(Message), []byte("a"), nil, []byte("b")}, ""},
		"end":                   {[][]byte{head(End)}, ""},
		"nothing":               {nil, "without a lane's header"},
		"a request alone":       {[][]byte{[]byte("\x81\xa2op\xa5nodes")}, "without a lane's header"},
		"header too long":       {[][]byte{append(head(End), 0)}, "without a lane's header"},
		"open of two":           {[][]byte{head(Open), nil, nil}, `kind 'o' with 2 frames`},
		"open of none":          {[][]byte{head(Open)}, `kind 'o' with 0 frames`},
		"empty message":         {[][]byte{head(Message)}, `kind 'm' with 0 frames`},
		"end with a word":       {[][]byte{head(End), []byte("bye")}, `kind 'e' with 1 frames`},
		"unknown kind":          {[][]byte{head('x')}, `kind 'x' with 0 frames`},
	} {
		kind, number, rest, err := Parse(tt.frames)
		if tt.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || byte(kind) != tt.frames[0][0] || number != 1<<40+2 || fmt.Sprint(rest) != fmt.Sprint(tt.frames[1:]) || len(rest) > 0 && !bytes.Equal(rest[0], tt.frames[1]) {
			t.Errorf("%s: %c, %d, %q, %v", name, kind, number, rest, err)
		}
	}
}

func TestMessagesThatTheDirectoryTakes(t *testing.T) {
	rest := MaxMessage - MaxFrame
	for name, tt := range map[string]struct {
		message [][]byte
		fits    bool
	}{
		"nothing":         {nil, true},
		"the most":        {append(make([][]byte, MaxFrames-2), make([]byte, rest), make([]byte, MaxFrame)), true},
		"a frame":         {[][]byte{make([]byte, MaxFrame+1)}, false},
		"all frames":      {[][]byte{make([]byte, MaxFrame), make([]byte, rest+1)}, false},
		"count of frames": {make([][]byte, MaxFrames+1), false},
	} {
		if got := Fits(tt.message); got != tt.fits {
			t.Errorf("%s: %v", name, got)
		}
	}
}
