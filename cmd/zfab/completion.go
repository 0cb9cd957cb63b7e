package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completeFlag is what the library adds to a command line to ask for its
// completions.
const completeFlag = "--generate-bash-completion"

// completesAfterTerminator finds a request to complete after `--`. The library
// would run the command instead; what follows `--` are files, which the shell
// completes by itself.
func completesAfterTerminator(args []string) bool {
	return args[len(args)-1] == completeFlag && slices.Contains(args[:len(args)-1], "--")
}

const bashCompletion = `_zfab() {
  local words
  words=$("${COMP_WORDS[@]:0:$COMP_CWORD}" ` + completeFlag + ` 2>/dev/null)
  case "${COMP_WORDS[$COMP_CWORD]}" in
    -*) words=$("${COMP_WORDS[@]:0:$COMP_CWORD}" - ` + completeFlag + ` 2>/dev/null) ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[$COMP_CWORD]}"))
}
complete -o default -o bashdefault -F _zfab zfab
`

const zshCompletion = `#compdef zfab
_zfab() {
  local -a words_found
  local current=${words[CURRENT]}
  if [[ $current == -* ]]; then
    words_found=("${(@f)$(${words[1,CURRENT-1]} - ` + completeFlag + ` 2>/dev/null)}")
  else
    words_found=("${(@f)$(${words[1,CURRENT-1]} ` + completeFlag + ` 2>/dev/null)}")
  fi
  [[ -n ${words_found[1]} ]] && compadd -- $words_found
  _files
}
compdef _zfab zfab
`

func (c *command) completionCommand() *cli.Command {
	return c.newCommand(&cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "bash: source <(zfab completion bash)\n" +
			"zsh:  source <(zfab completion zsh)\n" +
			"fish: zfab completion fish | source",
		Action: c.completion,
		BashComplete: func(*cli.Context) {
			fmt.Fprintln(c.stdout, "bash\nzsh\nfish")
		},
	})
}

func (c *command) completion(ctx *cli.Context) error {
	if ctx.NArg() != 1 {
		return usagef("completion: name one shell: bash, zsh or fish")
	}
	var script string
	switch shell := ctx.Args().First(); shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		var err error
		if script, err = ctx.App.ToFishCompletion(); err != nil {
			return err
		}
	default:
		return usagef("completion: unknown shell %q; known are: bash, zsh, fish", shell)
	}
	answer := struct {
		Shell  string `json:"shell"`
		Script string `json:"script"`
	}{ctx.Args().First(), script}
	return c.answer(ctx, answer, func(w io.Writer) error {
		_, err := io.Copy(w, strings.NewReader(script))
		return err
	})
}
