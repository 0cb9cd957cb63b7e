package compose

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

// downPatience is how long taking containers down may take.
const downPatience = time.Minute

// A project is a compose file that is up.
type project struct {
	tool   []string
	name   string
	file   string
	stderr io.Writer
}

// Run brings a topology up in containers of image, waits for its answer, and takes
// everything down again, also when ctx ends. What the containers say beside the
// answer goes to stderr.
func Run(ctx context.Context, f File, stderr io.Writer) (*report.Report, error) {
	tool, err := Tool(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "zfab-compose-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f.Format = "json"
	var text bytes.Buffer
	if err := f.Write(&text); err != nil {
		return nil, err
	}
	p := &project{
		tool: tool, name: "zfab-run-" + strings.ToLower(rand.Text()[:10]), file: filepath.Join(dir, "compose.yaml"), stderr: stderr,
	}
	if err := os.WriteFile(p.file, text.Bytes(), 0o644); err != nil {
		return nil, err
	}
	defer p.down()
	if _, err := p.compose(ctx, "up", "--detach"); err != nil {
		return nil, err
	}
	return p.answer(ctx)
}

// answer waits for the end of the container that answers.
func (p *project) answer(ctx context.Context) (*report.Report, error) {
	id, err := p.compose(ctx, "ps", "--quiet", RunService)
	if err != nil {
		return nil, err
	}
	if id == "" {
		// The run has ended already; the older docker-compose lists it all the same.
		if id, err = p.compose(ctx, "ps", "--all", "--quiet", RunService); err != nil {
			return nil, err
		}
	}
	code, err := docker(ctx, nil, "wait", id)
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	answer, err := docker(ctx, &said, "logs", id)
	if err != nil {
		return nil, err
	}
	var r report.Report
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		return nil, fmt.Errorf("the run in its container has ended with exit code %s and no answer: %s", code, strings.TrimSpace(said.String()))
	}
	p.stderr.Write(said.Bytes())
	r.Runner = "compose"
	return &r, nil
}

// down removes the containers and their network.
func (p *project) down() {
	ctx, cancel := context.WithTimeout(context.Background(), downPatience)
	defer cancel()
	if _, err := p.compose(ctx, "down", "--volumes", "--timeout", "2"); err != nil {
		fmt.Fprintf(p.stderr, "zfab: the containers of %s may still be there: %v\n", p.name, err)
	}
}

func (p *project) compose(ctx context.Context, arguments ...string) (string, error) {
	all := append(append([]string{}, p.tool[1:]...), "--project-name", p.name, "--file", p.file)
	return output(ctx, nil, p.tool[0], append(all, arguments...)...)
}

func docker(ctx context.Context, stderr io.Writer, arguments ...string) (string, error) {
	return output(ctx, stderr, "docker", arguments...)
}

// output runs a command and returns its standard output. What it says besides is
// part of the error, or goes to stderr if there is one.
func output(ctx context.Context, stderr io.Writer, name string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, name, arguments...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	if stderr != nil {
		command.Stderr = io.MultiWriter(&said, stderr)
	}
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", &UnavailableError{fmt.Sprintf("there is no %s command here", name)}
		}
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
