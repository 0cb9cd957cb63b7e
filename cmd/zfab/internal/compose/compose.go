// Package compose turns a topology into a compose file, and runs one with Docker.
//
// The file has a service for each node, which is `zfab member`, and one called run,
// which is `zfab run --runner remote` with the topology in its environment: so the
// file is all that is needed, beside an image with the program. The image is the
// program alone (image.go).
//
// What the file says is understood by `docker compose` and by the older
// docker-compose alike.
package compose

import (
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// ControlPort is where the service run waits for the members.
const ControlPort = 7380

// Variable is the environment's that holds the topology.
const Variable = "ZFAB_TOPOLOGY"

// RunService is the name of the service whose answer is the run's.
const RunService = "run"

// A File is what a compose file is made of.
type File struct {
	Name    string   // of the topology
	Image   string   // that has the program as its entry point
	Nodes   []string // their names; they are the services' names too
	Text    string   // of the topology file
	Timeout string   // of the run, as --timeout takes it
	Format  string   // of the run's answer
}

// New is the file of a topology whose file has that text.
func New(t *topology.Topology, text, image string) File {
	f := File{Name: t.Name, Image: image, Text: text, Timeout: "2m0s", Format: "table"}
	for i := range t.Nodes {
		f.Nodes = append(f.Nodes, topology.NodeName(i+1))
	}
	return f
}

var file = template.Must(template.New("compose").Funcs(template.FuncMap{
	"literal": literal,
	"next":    func(i int) int { return i + 1 },
}).Parse(`# The topology {{.Name}} as containers: a member for each node, and the run that waits for
# them, gives the load, checks every message and answers.
#
#     docker compose -f THIS-FILE up --exit-code-from {{.Run}}
#
services:
  {{.Run}}:
    image: {{.Image}}
    hostname: {{.Run}}
    command: [run, --runner, remote, --control, "{{.Run}}:{{.Port}}", --env, {{.Variable}}, --timeout, {{.Timeout}}, --format, {{.Format}}]
    networks: [fabric]
    environment:
      {{.Variable}}: |
{{literal 8 .Text}}
{{- range $i, $node := .Nodes}}
  {{$node}}:
    image: {{$.Image}}
    hostname: {{$node}}
    command: [member, --control, "{{$.Run}}:{{$.Port}}", --node, "{{next $i}}"]
    networks: [fabric]
    depends_on: [{{$.Run}}]
{{- end}}
networks:
  fabric: {}
`))

// Write writes the compose file.
func (f File) Write(w io.Writer) error {
	return file.Execute(w, struct {
		File
		Run, Variable string
		Port          int
	}{f, RunService, Variable, ControlPort})
}

// literal is text as a YAML block of lines, indented, in which compose finds
// nothing to replace.
func literal(indent int, text string) string {
	var b strings.Builder
	margin := strings.Repeat(" ", indent)
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		if line != "" {
			fmt.Fprint(&b, margin, strings.ReplaceAll(line, "$", "$$"))
		}
	}
	return b.String()
}
