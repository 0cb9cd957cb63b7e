package main

import (
	"fmt"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"

	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// progress tells on stderr how far the work is: a bar on a terminal, else a line
// now and then. One goroutine uses it at a time.
type progress struct {
	command *command
	what    string
	total   int64 // 0: not known
	bar     *progressbar.ProgressBar
	lastLog time.Time
}

// logInterval is how often a line is written where there is no terminal.
const logInterval = 5 * time.Second

func (c *command) newProgress(what string, total int64) *progress {
	p := &progress{command: c, what: what, total: total, lastLog: time.Now()}
	if f, ok := c.stderr.(*os.File); !ok || !isatty.IsTerminal(f.Fd()) {
		return p
	}
	size := total
	if size == 0 {
		size = -1 // a spinner
	}
	p.bar = progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(c.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
	return p
}

func (p *progress) set(done uint64) {
	switch {
	case p.bar != nil:
		p.bar.Set64(int64(done))
	case time.Since(p.lastLog) < logInterval:
	case p.total > 0:
		p.lastLog = time.Now()
		fmt.Fprintf(p.command.stderr, "zfab: %s %s of %s\n", p.what, units.Count(float64(done)), units.Count(float64(p.total)))
	default:
		p.lastLog = time.Now()
		fmt.Fprintf(p.command.stderr, "zfab: %s %s\n", p.what, units.Count(float64(done)))
	}
}

// of is set where the total is known only now.
func (p *progress) of(done uint64, total int64) {
	if p.total != total {
		p.total = total
		if p.bar != nil {
			p.bar.ChangeMax64(total)
		}
	}
	p.set(done)
}

// end leaves the terminal's line empty for what follows.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
