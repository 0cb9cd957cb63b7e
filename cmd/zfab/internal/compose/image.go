package compose

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Dockerfile is the image's: the program and nothing else.
const Dockerfile = "FROM scratch\nCOPY zfab /zfab\nENTRYPOINT [\"/zfab\"]\n"

// An UnavailableError is that Docker, or compose, is not there or does not answer.
type UnavailableError struct{ Reason string }

func (e *UnavailableError) Error() string { return e.Reason }

// Image makes an image of the program, or finds the one that was made of it
// before, and returns its name. The program has to be a static Linux binary.
func Image(ctx context.Context, program string, stderr io.Writer) (string, error) {
	if err := static(program); err != nil {
		return "", err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	image := fmt.Sprintf("zfab:%x", sha256.Sum256(text))[:len("zfab:")+12]
	if err := exec.CommandContext(ctx, "docker", "image", "inspect", image).Run(); err == nil {
		return image, nil
	} else if errors.Is(err, exec.ErrNotFound) {
		return "", &UnavailableError{"there is no `docker` command here"}
	}
	dir, err := os.MkdirTemp("", "zfab-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "zfab"), text, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(Dockerfile), 0o644); err != nil {
		return "", err
	}
	said, err := exec.CommandContext(ctx, "docker", "build", "--quiet", "--tag", image, dir).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &UnavailableError{fmt.Sprintf("docker build: %v: %s", err, strings.TrimSpace(string(said)))}
	}
	fmt.Fprintf(stderr, "zfab: built the image %s\n", image)
	return image, nil
}

// static reports why a program cannot be all that an image has.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("%s cannot run in a container: %w", program, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs libraries that an image of it alone has not: build it with CGO_ENABLED=0, as `make build` does", program)
		}
	}
	return nil
}

// Tool is the compose command of this machine: `docker compose`, or the older
// docker-compose.
func Tool(ctx context.Context) ([]string, error) {
	for _, tool := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.CommandContext(ctx, tool[0], append(tool[1:], "version")...).Run() == nil {
			return tool, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, &UnavailableError{"there is neither `docker compose` nor docker-compose here"}
}
