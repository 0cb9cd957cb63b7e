package compose

import (
	"strings"
	"testing"
)

// Every part of the tour says something, and what is its own.
func TestTour(t *testing.T) {
	c := up(t, "tour")
	said := func(service string) string {
		return command(t, c.ctx, "docker", "logs", c.id(service))
	}
	for service, lines := range map[string][]string{
		"pull1":    {`{"from":"push/0","text":"abcdefghijklmnop"}`},
		"pull2":    {`{"from":"push/0","text":"abcdefghijklmnop"}`},
		"req":      {"abcdefgh"},
		"survey":   {`"from":"respond1/0"`, `"from":"respond2/0"`},
		"sub-all":  {`"topic":"oslo.wind"`, `"topic":"rome.rain"`},
		"sub-wind": {`"topic":"oslo.wind"`},
	} {
		for _, line := range lines {
			c.await(service+" to say "+line, func() bool { return strings.Count(said(service), line) >= 5 })
		}
	}
	if text := said("sub-wind"); strings.Contains(text, "rome") {
		t.Errorf("a subscriber gets what it has not asked for:\n%s", text)
	}

	// A worker that is killed: the other one goes on.
	command(t, c.ctx, "docker", "kill", c.id("pull1"))
	before := strings.Count(said("pull2"), "\n")
	c.await("the other worker to go on", func() bool { return strings.Count(said("pull2"), "\n") >= before+20 })
}
