package patterns

import (
	"fmt"
	"slices"
	"strings"
)

// maxTopic bounds a topic, and a filter, in bytes: a text in a record.
const maxTopic = maxText

// Filter says which topics a subscriber wants: Prefix or Pattern makes one. The
// zero Filter is Prefix(""), all topics.
type Filter struct {
	kind uint8
	text string
}

// The kinds of filters, as in a record.
const (
	prefixFilter  = 0
	patternFilter = 1
)

// Prefix is the filter for topics that begin with these bytes, as ZeroMQ has it:
// "weather.o" takes "weather.oslo" and "weather.oslo.wind"; "" takes all. It has
// 255 bytes at most.
func Prefix(bytes string) Filter { return Filter{prefixFilter, bytes} }

// Pattern is the filter for topics that are like it token by token, as NATS has
// it. Tokens stand between dots; "*" is any one token, and ">", as the last one,
// any one or more. "weather.*.wind" takes "weather.oslo.wind", "weather.>" takes
// it too, and not "weather". What is no pattern is a *PatternError where it is
// used.
func Pattern(pattern string) Filter { return Filter{patternFilter, pattern} }

func (f Filter) String() string {
	if f.kind == prefixFilter {
		return fmt.Sprintf("prefix %q", f.text)
	}
	return fmt.Sprintf("pattern %q", f.text)
}

// Matches reports whether the filter takes a topic. It takes a walk along both;
// publishers do it for all their subscriptions together.
func (f Filter) Matches(topic string) bool {
	if f.kind == prefixFilter {
		return strings.HasPrefix(topic, f.text)
	}
	pattern, more := f.text, true
	for more {
		var want, token string
		var rest bool
		want, pattern, more = strings.Cut(pattern, ".")
		if want == ">" {
			return true
		}
		token, topic, rest = strings.Cut(topic, ".")
		if want != "*" && want != token || more != rest {
			return false
		}
	}
	return true
}

// check returns nil or a *PatternError.
func (f Filter) check() error {
	problem := ""
	tokens := strings.Split(f.text, ".")
	switch {
	case len(f.text) > maxTopic:
		problem = fmt.Sprintf("it has %d bytes, and may have %d", len(f.text), maxTopic)
	case f.kind == prefixFilter:
	case f.kind != patternFilter:
		problem = "there is no such kind of filter"
	case slices.Contains(tokens, ""):
		problem = "a token is empty"
	case slices.Contains(tokens[:len(tokens)-1], ">"):
		problem = `">" is not its last token`
	}
	if problem == "" {
		return nil
	}
	return &PatternError{Filter: f, Problem: problem}
}

// PatternError: a subscription's filter is none.
type PatternError struct {
	Filter  Filter
	Problem string
}

func (e *PatternError) Error() string { return fmt.Sprintf("%s: %s", e.Filter, e.Problem) }

// TopicError: nothing can be published under such a topic.
type TopicError struct {
	Topic   string
	Problem string
}

func (e *TopicError) Error() string { return fmt.Sprintf("topic %q: %s", e.Topic, e.Problem) }

// checkTopic returns nil or a *TopicError. It looks at each byte once: it is done
// for every message.
func checkTopic(topic string) error {
	problem := ""
	if len(topic) == 0 || len(topic) > maxTopic {
		problem = fmt.Sprintf("it has %d bytes, and may have 1 to %d", len(topic), maxTopic)
	}
	begin := 0 // of the token
	for i := 0; i <= len(topic) && problem == ""; i++ {
		if i < len(topic) && topic[i] != '.' {
			continue
		}
		switch topic[begin:i] {
		case "":
			problem = "a token is empty"
		case "*", ">":
			problem = "a token is a wildcard"
		}
		begin = i + 1
	}
	if problem == "" {
		return nil
	}
	return &TopicError{Topic: topic, Problem: problem}
}
