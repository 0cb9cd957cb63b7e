package directory

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a directory takes.
const (
	// MaxName is the length of a node's or channel's name in bytes: as long as a ZMTP identity may be.
	MaxName = 255
	// MaxEndpoint is the length of an endpoint in bytes.
	MaxEndpoint = 1024
	// MaxIndex is the greatest index of a member.
	MaxIndex = 1<<31 - 1
	// MaxIncarnation is the greatest incarnation: exact in a float64, so in every language's numbers.
	MaxIncarnation = 1 << 53
	// MaxWeight is the greatest weight of a node.
	MaxWeight = 1_000_000
)

// CheckName reports whether name may name a node, a channel, a zone or a host (what says which, for the error): 1 to MaxName bytes
// of A-Z, a-z, 0-9, '.', '_' and '-'. The error is a *NameError.
func CheckName(what, name string) error {
	if name == "" {
		return &NameError{What: what, Reason: "is empty"}
	}
	if len(name) > MaxName {
		return &NameError{What: what, Name: name[:MaxName], Offset: MaxName,
			Reason: fmt.Sprintf("has %d bytes, more than %d", len(name), MaxName)}
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return &NameError{What: what, Name: name, Offset: i,
				Reason: fmt.Sprintf("has %q at byte %d; allowed are A-Z a-z 0-9 . _ -", name[i], i)}
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

func checkInfo(info NodeInfo) error {
	if err := CheckName("node", info.Name); err != nil {
		return err
	}
	if info.Incarnation > MaxIncarnation {
		return invalid("node %s: incarnation %d is over %d", info.Name, info.Incarnation, uint64(MaxIncarnation))
	}
	if len(info.Endpoint) > MaxEndpoint {
		return invalid("node %s: endpoint has %d bytes, more than %d", info.Name, len(info.Endpoint), MaxEndpoint)
	}
	for i, c := range info.Endpoint {
		if c == utf8.RuneError || unicode.IsControl(c) {
			return invalid("node %s: endpoint %q has an unprintable character at byte %d", info.Name, info.Endpoint, i)
		}
	}
	return checkAttributes(info)
}

// checkAttributes checks what a node says of its place and share.
func checkAttributes(info NodeInfo) error {
	if info.Weight > MaxWeight {
		return invalid("node %s: weight %d is over %d", info.Name, info.Weight, MaxWeight)
	}
	for _, place := range [...]struct{ what, name string }{{"zone", info.Zone}, {"host", info.Host}} {
		if place.name != "" {
			if err := CheckName(place.what, place.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMembers returns the one node that all members belong to.
func checkMembers(members []Member) (node string, err error) {
	for i, m := range members {
		if i == 0 {
			if err := CheckName("node", m.Node); err != nil {
				return "", err
			}
		}
		if m.Node != members[0].Node {
			return "", invalid("members of two nodes, %s and %s, in one call", members[0].Node, m.Node)
		}
		if err := CheckName("channel", m.Channel); err != nil {
			return "", err
		}
		if m.Role != Producer && m.Role != Consumer {
			return "", invalid("member %v: %v is neither producer nor consumer", m, m.Role)
		}
		if m.Index < 0 || m.Index > MaxIndex {
			return "", invalid("member %v: index is not within 0 to %d", m, MaxIndex)
		}
	}
	return members[0].Node, nil
}
