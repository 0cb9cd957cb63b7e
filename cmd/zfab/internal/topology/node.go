package topology

import (
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A scalar is one written value and the place it stands at. Its zero value is
// a field that the file does not have; told is one of which a problem is told
// already, so that its readers take zero for it in silence.
type scalar struct {
	text string
	at   *token.Token
	told bool
}

func (s scalar) set() bool { return s.at != nil }

// A field is one that a mapping may have: its name and who reads its value.
type field struct {
	name string
	read func(ast.Node)
}

// scalarField reads a value into s.
func (p *problems) scalarField(name string, s *scalar) field {
	return field{name, func(n ast.Node) { *s = p.scalar(n, name) }}
}

// mapping reads a mapping with none but the given fields. what names it in
// errors.
func (p *problems) mapping(n ast.Node, what string, fields ...field) {
	for _, pair := range p.pairs(n, what) {
		known := false
		for _, f := range fields {
			if f.name == pair.key.text {
				f.read(pair.value)
				known = true
			}
		}
		if !known {
			var names []string
			for _, f := range fields {
				names = append(names, f.name)
			}
			p.add(pair.key.at, "unknown field %q in %s; known are: %s", pair.key.text, what, strings.Join(names, ", "))
		}
	}
}

// A pair is a key with its value.
type pair struct {
	key   scalar
	value ast.Node
}

// pairs are a mapping's keys and values in the file's order.
func (p *problems) pairs(n ast.Node, what string) []pair {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		p.wrongKind(n, what, "fields, like `name: value`")
		return nil
	}
	var all []pair
	for _, v := range values {
		key := p.scalar(v.Key, "a field's name")
		if !key.told {
			all = append(all, pair{key, v.Value})
		}
	}
	return all
}

// start is where a node begins: a mapping's own token may be its first colon.
func start(n ast.Node) *token.Token {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return m.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return m.Key.GetToken()
	}
	return n.GetToken()
}

func isMapping(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// sequence are the items of a list.
func (p *problems) sequence(n ast.Node, what string) []ast.Node {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		p.wrongKind(n, what, "a list, each item after `- `")
		return nil
	}
	return list.Values
}

// scalar reads one value as it is written; what it means is for the builder to
// say.
func (p *problems) scalar(n ast.Node, what string) scalar {
	switch n := n.(type) {
	case *ast.StringNode:
		return scalar{text: n.Value, at: n.GetToken()}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return scalar{text: n.GetToken().Value, at: n.GetToken()}
	}
	p.wrongKind(n, what, "one value")
	return scalar{at: n.GetToken(), told: true}
}

func (p *problems) wrongKind(n ast.Node, what, want string) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		p.add(n.GetToken(), "anchors, aliases and tags are not used in topology files: write the value of %s out", what)
	case *ast.NullNode:
		p.add(n.GetToken(), "%s is empty: give it %s, or leave it out", what, want)
	default:
		p.add(n.GetToken(), "%s must be %s", what, want)
	}
}
