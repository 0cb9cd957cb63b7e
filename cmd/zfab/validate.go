package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

func (c *command) validateCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:      "validate",
		Usage:     "check topology files and say what is wrong, with the line",
		ArgsUsage: "FILE...",
		Action:    c.validate,
	})
}

// A validation is the answer for one file.
type validation struct {
	File     string              `json:"file"`
	Valid    bool                `json:"valid"`
	Name     string              `json:"name,omitempty"`
	Problems []validationProblem `json:"problems,omitempty"`
}

type validationProblem struct {
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

// validate reads every file, also after a bad one, and fails if one was bad.
func (c *command) validate(ctx *cli.Context) error {
	if ctx.NArg() == 0 {
		return usagef("validate: name at least one topology file")
	}
	var all []validation
	var failures []error
	for _, file := range ctx.Args().Slice() {
		v := validation{File: file}
		t, err := topology.ReadFile(file)
		var bad *topology.Error
		switch {
		case err == nil:
			v.Valid, v.Name = true, t.Name
		case errors.As(err, &bad):
			for _, p := range bad.Problems {
				v.Problems = append(v.Problems, validationProblem{p.Line, p.Column, p.Message})
			}
			failures = append(failures, err)
		default:
			v.Problems = append(v.Problems, validationProblem{Message: err.Error()})
			failures = append(failures, err)
		}
		all = append(all, v)
	}
	err := c.answer(ctx, all, func(w io.Writer) error { return writeValidations(w, all) })
	if len(failures) > 0 {
		for _, f := range failures {
			fmt.Fprintln(c.stderr, f)
		}
		return fileError{fmt.Errorf("%d of %d files are bad", len(failures), len(all))}
	}
	return err
}

func writeValidations(w io.Writer, all []validation) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, v := range all {
		verdict := "valid"
		if !v.Valid {
			verdict = "bad"
		}
		fmt.Fprintf(t, "%s\t%s\n", v.File, verdict)
	}
	return t.Flush()
}
