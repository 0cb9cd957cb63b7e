package fabric

import (
	"strings"
	"testing"
)

func TestCheckMessagePack(t *testing.T) {
	for body, want := range map[string]string{
		"\x93\x01\xa2ok\xc0":   "",
		"\x91\x91\x91\x01":     "nested deeper than 2 at byte 2",
		"\xdd\xff\xff\xff\xff": "4294967295 elements claimed, 0 bytes left at byte 0",
		"\x01\x02":             "1 bytes after the value at byte 1",
		"":                     "input ends within a value at byte 0",
	} {
		err := CheckMessagePack([]byte(body), 2)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%x: %v, want %q", body, err, want)
		}
	}
}
