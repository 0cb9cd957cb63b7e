package topology

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// A Problem is one thing wrong in a file.
type Problem struct {
	Line, Column int // 1-based; 0 where the file as a whole is meant
	Message      string
	Source       string // the line of the file
}

// An Error is everything wrong in one file, in the order of its lines.
type Error struct {
	File     string
	Problems []Problem
}

// Error prints each problem as file:line:column: message, the line below it
// and a mark under the column.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		if p.Line == 0 {
			fmt.Fprintf(&b, "%s: %s", e.File, p.Message)
			continue
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s\n", e.File, p.Line, p.Column, p.Message)
		fmt.Fprintf(&b, "%6d | %s\n", p.Line, p.Source)
		fmt.Fprintf(&b, "       | %s^", indent(p.Source, p.Column-1))
	}
	return b.String()
}

// indent is the white space as wide as the first n characters of line: tabs
// stay tabs, so that the mark stands under its column.
func indent(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n--; n < 0 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// maxProblems bounds what one file can print.
const maxProblems = 20

// problems collects what is wrong while a file is read.
type problems struct {
	lines []string
	found []Problem
}

func (p *problems) add(at *token.Token, format string, args ...any) {
	problem := p.place(at)
	problem.Message = fmt.Sprintf(format, args...)
	if len(p.found) < maxProblems {
		p.found = append(p.found, problem)
	}
}

// place is a problem at a token that has no message yet.
func (p *problems) place(at *token.Token) (problem Problem) {
	if at != nil && at.Position != nil {
		problem.Line, problem.Column = at.Position.Line, at.Position.Column
		if problem.Line >= 1 && problem.Line <= len(p.lines) {
			problem.Source = printable(strings.TrimRight(p.lines[problem.Line-1], "\r"))
		}
	}
	return problem
}

// printable is text with a mark for each byte that is no text: what a terminal would
// obey, if the file is none that a person wrote.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// addSyntax takes over what the YAML library found wrong.
func (p *problems) addSyntax(err error) {
	var at yaml.Error
	if errors.As(err, &at) {
		p.add(at.GetToken(), "%s", printable(at.GetMessage()))
		return
	}
	p.add(nil, "%v", err)
}

// err is nil when nothing is wrong.
func (p *problems) err(file string) error {
	if len(p.found) == 0 {
		return nil
	}
	return &Error{File: file, Problems: p.found}
}
