package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// exits runs a command that must end with one exit code:
//
//	exits 64 zfab run
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [argument...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// jsonHolds compares a field of the JSON that the last command printed:
//
//	json messages.lost == 0
//	json expectations.0.passed == true
func jsonHolds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json path ==|<=|>= value")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for _, name := range strings.Split(args[0], ".") {
		switch v := value.(type) {
		case map[string]any:
			field, ok := v[name]
			if !ok {
				ts.Fatalf("no field %s in %v", name, v)
			}
			value = field
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			if i >= len(v) {
				ts.Fatalf("%d items, none of number %d", len(v), i)
			}
			value = v[i]
		default:
			ts.Fatalf("%s in %v, which has no fields", name, v)
		}
	}
	if !compare(value, args[1], args[2]) {
		ts.Fatalf("%s is %v, want %s %s", args[0], value, args[1], args[2])
	}
}

func compare(value any, op, want string) bool {
	number, isNumber := value.(float64)
	limit, err := strconv.ParseFloat(want, 64)
	switch {
	case op == "==" && isNumber:
		return err == nil && number == limit
	case op == "==":
		return fmt.Sprint(value) == want
	case op == "<=":
		return isNumber && err == nil && number <= limit
	case op == ">=":
		return isNumber && err == nil && number >= limit
	}
	return false
}
