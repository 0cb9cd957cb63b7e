package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func (c *command) versionCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:  "version",
		Usage: "print the version, the revision it was built from and the Go it was built with",
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() > 0 {
				return usagef("version takes no arguments")
			}
			v := version()
			return c.answer(ctx, v, v.write)
		},
	})
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built with changes on top of the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// version is what the build recorded.
func version() versionInfo {
	v := versionInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v versionInfo) write(w io.Writer) error {
	_, err := fmt.Fprintf(w, "zfab %s %s %s", v.Version, v.Go, v.Platform)
	if err == nil && v.Revision != "" {
		_, err = fmt.Fprintf(w, " %s", v.Revision)
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}
