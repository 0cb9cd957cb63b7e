package directory

import (
	"strings"
	"testing"
)

// A script feeds a view and names what it tells. Words: "begin" a snapshot, "+m@i" and "-m@i" for member m of
// incarnation i, "synced" or "synced?" (the first snapshot of another directory life), "expire".
func TestViewTellsDifferences(t *testing.T) {
	const start = "begin +a/0@1 +b/0@1 synced | +a/0@1 +b/0@1 synced"
	for name, steps := range map[string][]string{
		"snapshot":                        {start},
		"empty snapshot":                  {"begin synced | synced"},
		"change within the snapshot":      {"begin +a/0@1 +b/0@1 -a/0@1 synced | +b/0@1 synced"},
		"changes":                         {start, "-a/0@1 | -a/0@1", "+a/0@1 | +a/0@1"},
		"what was told already":           {start, "+a/0@1 -c/0@1 |"},
		"the same snapshot again":         {start, "begin +a/0@1 +b/0@1 synced |"},
		"went first, then what came":      {start, "begin +a/1@1 +b/0@1 +c/0@1 synced | -a/0@1 +a/1@1 +c/0@1"},
		"a snapshot that was not ended":   {start, "begin +c/0@1 begin +a/0@1 +b/0@1 synced |"},
		"nothing told within a snapshot":  {start, "begin +c/0@1 |", "synced | -a/0@1 -b/0@1 +c/0@1"},
		"another life of a node":          {start, "begin +a/0@2 +a/1@2 +b/0@1 synced | -a/0@1 +a/0@2 +a/1@2"},
		"another life without removal":    {start, "+a/0@2 | -a/0@1 +a/0@2"},
		"doubt, and all come back":        {start, "begin synced? |", "+a/0@1 +b/0@1 |", "expire |"},
		"a lease has ended":               {start, "~a/0@1 | ~a/0@1"},
		"doubt, and one comes back":       {start, "begin +b/0@1 synced? |", "expire | ~a/0@1", "expire |"},
		"doubt, and removed after all":    {start, "begin synced? |", "+a/0@1 -a/0@1 | -a/0@1", "expire | ~b/0@1"},
		"doubt, settled by another life":  {"begin +a/0@1 +a/1@1 +b/0@1 synced | +a/0@1 +a/1@1 +b/0@1 synced", "begin synced? |", "+a/1@2 | -a/1@1 -a/0@1 +a/1@2", "expire | ~b/0@1"},
		"doubt outlives another snapshot": {start, "begin +b/0@1 synced? |", "begin synced | -b/0@1", "expire | ~a/0@1"},
		"doubt ended by another snapshot": {start, "begin synced? |", "begin +a/0@1 +b/0@1 synced |", "expire |"},
		"doubt does not end at a third":   {start, "begin synced? |", "begin synced? |", "expire | ~a/0@1 ~b/0@1"},
	} {
		t.Run(name, func(t *testing.T) {
			var v view
			for _, step := range steps {
				script, want, _ := strings.Cut(step, "|")
				for _, word := range strings.Fields(script) {
					switch word {
					case "begin":
						v.begin()
					case "synced", "synced?":
						v.apply(Event{Kind: Synced}, word == "synced?")
					case "expire":
						v.expire(0)
					default:
						node, rest, _ := strings.Cut(word[1:], "/")
						index, incarnation, _ := strings.Cut(rest, "@")
						e := Event{Kind: Added, Member: consumer("c", node, int(index[0]-'0')),
							Node: NodeInfo{Name: node, Incarnation: uint64(incarnation[0] - '0')}}
						if word[0] != '+' {
							e.Kind, e.Expired = Removed, word[0] == '~'
						}
						v.apply(e, false)
					}
				}
				var got []string
				for {
					e, ok := v.next()
					if !ok {
						break
					}
					text := e.Kind.String()
					if e.Kind != Synced {
						text = strings.Replace(told(e), "c/", "", 1) + "@" + string(rune('0'+e.Node.Incarnation))
					}
					got = append(got, text)
				}
				if text := strings.Join(got, " "); text != strings.TrimSpace(want) {
					t.Fatalf("after %q: told %q, want %q", script, text, strings.TrimSpace(want))
				}
			}
		})
	}
}
