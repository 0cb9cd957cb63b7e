// Package lines turns messages into lines of text and back, for commands that a
// shell script talks to.
//
//	raw    the body as it is, and a newline; a body with newlines becomes several lines
//	hex    the body as hexadecimal digits
//	json   an object: {"text": "..."}, or {"base64": "..."} where the body is not UTF-8;
//	       what is written also says where it comes from
package lines

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Format is how a message is a line.
type Format string

// The formats.
const (
	Raw  Format = "raw"
	JSON Format = "json"
	Hex  Format = "hex"
)

// Formats are those that are known.
var Formats = []Format{Raw, JSON, Hex}

// A Line is a message as the format json has it. Of Text and Base64 one is set.
type Line struct {
	From       string  `json:"from,omitempty"`       // node/index; of what is written
	Topic      string  `json:"topic,omitempty"`      // of what is published
	Deliveries int     `json:"deliveries,omitempty"` // of a job that was delivered before, with this time
	Replayed   bool    `json:"replayed,omitempty"`   // published before it was subscribed to
	Missed     uint64  `json:"missed,omitempty"`     // so many messages were dropped here; without a body
	Question   int     `json:"question,omitempty"`   // of an answer: which one of the input, from 1
	Error      string  `json:"error,omitempty"`      // why there is no answer; without a body
	Text       *string `json:"text,omitempty"`
	Base64     *[]byte `json:"base64,omitempty"`
}

// A Writer writes messages. One goroutine at a time may use it.
type Writer struct {
	w      io.Writer
	format Format
	line   []byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer, format Format) *Writer { return &Writer{w: w, format: format} }

// Write writes a message in one piece. What l has is written with the format json
// only.
func (w *Writer) Write(l Line, body []byte) error {
	w.line = w.line[:0]
	switch w.format {
	case Hex:
		w.line = hex.AppendEncode(w.line, body)
	case JSON:
		if utf8.Valid(body) {
			text := string(body)
			l.Text = &text
		} else {
			l.Base64 = &body
		}
		return w.object(l)
	default:
		w.line = append(w.line, body...)
	}
	w.line = append(w.line, '\n')
	_, err := w.w.Write(w.line)
	return err
}

// Note writes what is no message, with the format json; with the others nothing.
func (w *Writer) Note(l Line) error {
	if w.format != JSON {
		return nil
	}
	return w.object(l)
}

func (w *Writer) object(l Line) error {
	e := json.NewEncoder(w.w)
	e.SetEscapeHTML(false)
	return e.Encode(l)
}

// A Reader reads messages. One goroutine at a time may use it.
type Reader struct {
	in     *bufio.Reader
	format Format
	most   int
	number int
	line   []byte
}

// NewReader returns a Reader of r that takes messages of up to most bytes.
func NewReader(r io.Reader, format Format, most int) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, 64<<10), format: format, most: most}
}

// A LineError is a line that is no message.
type LineError struct {
	Line   int // from 1
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d of the input: %s", e.Line, e.Reason) }

// Read returns the next message, which is valid until the next Read; io.EOF at the
// end, and a *LineError where a line is no message. An empty line is an empty
// message, with the format json none.
func (r *Reader) Read() (l Line, body []byte, err error) {
	for {
		if err := r.readLine(); err != nil {
			return Line{}, nil, err
		}
		switch r.format {
		case Hex:
			n, err := hex.Decode(r.line, r.line)
			if err != nil {
				return Line{}, nil, r.bad("%v", err)
			}
			return Line{}, r.line[:n], nil
		case JSON:
			if len(bytes.TrimSpace(r.line)) == 0 {
				continue
			}
			return r.object()
		default:
			return Line{}, r.line, nil
		}
	}
}

func (r *Reader) object() (l Line, body []byte, err error) {
	d := json.NewDecoder(bytes.NewReader(r.line))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Line{}, nil, r.bad("%v", err)
	}
	if d.More() {
		return Line{}, nil, r.bad("more than one object")
	}
	switch {
	case (l.Text == nil) == (l.Base64 == nil):
		return Line{}, nil, r.bad(`give "text" or "base64"`)
	case l.Text != nil:
		body = []byte(*l.Text)
	default:
		body = *l.Base64
	}
	return l, body, nil
}

// readLine reads a line without its newline into line.
func (r *Reader) readLine() error {
	r.line = r.line[:0]
	r.number++
	for {
		part, err := r.in.ReadSlice('\n')
		r.line = append(r.line, part...)
		if len(r.line) > r.mostLine() {
			return r.bad("longer than a message may be, %d bytes", r.most)
		}
		switch {
		case err == nil:
			r.line = bytes.TrimSuffix(r.line[:len(r.line)-1], []byte{'\r'})
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(r.line) > 0:
			return nil // a last line without a newline
		default:
			return err
		}
	}
}

// mostLine is how long the line of the longest message can be: each byte of a
// text can be written with six.
func (r *Reader) mostLine() int {
	switch r.format {
	case Hex:
		return 2*r.most + 2
	case JSON:
		return 6*r.most + 4096
	}
	return r.most + 2
}

func (r *Reader) bad(format string, args ...any) error {
	return &LineError{r.number, fmt.Sprintf(format, args...)}
}
