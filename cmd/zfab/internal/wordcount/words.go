package wordcount

import (
	"errors"
	"io"
)

// MaxWord bounds one word, and with it a mapper's memory.
const MaxWord = 1 << 20

var errLongWord = errors.New("a word is longer than 1 MiB")

// class tells which bytes begin a word and which go on with one: the pattern
// [A-Za-z_][A-Za-z0-9_]* in the C locale. All other bytes end it, whatever they
// are; so a file of any kind has words, as for grep -a.
var class = func() (table [256]byte) {
	for b := range 256 {
		switch c := byte(b); {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_':
			table[b] = begins | goesOn
		case c >= '0' && c <= '9':
			table[b] = goesOn
		}
	}
	return table
}()

const (
	begins = 1 << iota
	goesOn
)

// words calls each with every word of r, in order. The word is valid during the
// call. buffer is for reading; a word may be longer.
func words(r io.Reader, buffer []byte, each func(word []byte) error) error {
	var partial []byte // of a word that goes on in the next read
	for {
		n, err := r.Read(buffer)
		rest := buffer[:n]
		if len(partial) > 0 {
			end := wordEnd(rest)
			partial = append(partial, rest[:end]...)
			if len(partial) > MaxWord {
				return errLongWord
			}
			if rest = rest[end:]; len(rest) > 0 {
				if err := each(partial); err != nil {
					return err
				}
				partial = partial[:0]
			}
		}
		for len(rest) > 0 {
			begin := wordBegin(rest)
			rest = rest[begin:]
			end := wordEnd(rest)
			if end == len(rest) {
				partial = append(partial, rest...)
				break
			}
			if err := each(rest[:end]); err != nil {
				return err
			}
			rest = rest[end:]
		}
		if err == io.EOF {
			if len(partial) > 0 {
				return each(partial)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func wordBegin(b []byte) int {
	for i, c := range b {
		if class[c]&begins != 0 {
			return i
		}
	}
	return len(b)
}

// wordEnd is where the word that b begins with ends.
func wordEnd(b []byte) int {
	for i, c := range b {
		if class[c]&goesOn == 0 {
			return i
		}
	}
	return len(b)
}
