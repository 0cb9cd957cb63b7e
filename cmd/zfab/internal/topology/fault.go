package topology

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/zfab/zfab/cmd/zfab/internal/units"
)

// A faultRule says how the file writes one kind of fault: the field of its name
// holds the target, and which other fields it has beside at.
//
//	{at: 500ms, for: 2s, stall: scores/n3/1}
//	{at: 1s, every: 200ms, times: 50, cut: random}
type faultRule struct {
	kind   FaultKind
	target func(b *builder, s scalar, f *Fault)
	lasts  presence // the field for
	recurs bool     // the fields every, until and times
	own    string   // the one field that only this kind has; it must be there
}

// presence says whether a field may or must be there.
type presence int

const (
	never presence = iota
	optional
	always
)

var faultRules = []faultRule{
	{kind: Stall, target: (*builder).stallTarget, lasts: always},
	{kind: Cut, target: (*builder).linkTarget, recurs: true},
	{kind: Blackhole, target: (*builder).linkTarget, lasts: always, recurs: true},
	{kind: Delay, target: (*builder).linkTarget, lasts: optional, recurs: true, own: "amount"},
	{kind: Rate, target: (*builder).linkTarget, lasts: optional, recurs: true, own: "bytes_per_second"},
	{kind: Kill, target: (*builder).killTarget, recurs: true, own: "restart_after"},
	{kind: Pause, target: (*builder).nodeTarget, lasts: always, recurs: true},
}

// faultFields are an item's fields as they were written.
type faultFields struct {
	at, length, every, until, times scalar
	own                             map[string]*scalar
	targets                         []scalar // by rule
}

func (b *builder) buildFaults(n ast.Node) {
	if n == nil {
		return
	}
	for _, item := range b.sequence(n, "faults") {
		b.buildFault(item)
	}
}

func (b *builder) buildFault(n ast.Node) {
	before := len(b.found)
	w := b.faultFields(n)
	if !isMapping(n) {
		return
	}
	at := start(n)
	rule, ok := b.faultRule(w, at, len(b.found) > before)
	if !ok {
		return
	}
	target := w.targets[slices.IndexFunc(faultRules, func(r faultRule) bool { return r.kind == rule.kind })]
	f := Fault{Kind: rule.kind, Target: target.text, At: b.duration(w.at, at, "at", 0)}
	f.place = b.place(target.at)
	b.faultLength(rule, w, at, &f)
	b.faultRecurrence(rule, w, &f)
	b.faultOwn(rule, w, at, &f)
	if len(b.found) == before {
		rule.target(b, target, &f)
	}
	if len(b.found) == before {
		b.t.Faults = append(b.t.Faults, f)
	}
}

func (b *builder) faultFields(n ast.Node) faultFields {
	w := faultFields{own: make(map[string]*scalar), targets: make([]scalar, len(faultRules))}
	fields := []field{
		b.scalarField("at", &w.at), b.scalarField("for", &w.length),
		b.scalarField("every", &w.every), b.scalarField("until", &w.until), b.scalarField("times", &w.times),
	}
	for i, r := range faultRules {
		fields = append(fields, b.scalarField(string(r.kind), &w.targets[i]))
		if r.own != "" {
			w.own[r.own] = new(scalar)
			fields = append(fields, b.scalarField(r.own, w.own[r.own]))
		}
	}
	b.mapping(n, "a fault", fields...)
	return w
}

// faultRule finds the one kind that the item names. bad tells that its fields
// are wrong already, so that a missing kind is no news.
func (b *builder) faultRule(w faultFields, at *token.Token, bad bool) (found faultRule, ok bool) {
	for i, s := range w.targets {
		switch {
		case !s.set():
		case found.kind != "":
			b.add(s.at, "a fault is of one kind: %s and %s need an item each", found.kind, faultRules[i].kind)
			return found, false
		default:
			found = faultRules[i]
		}
	}
	if found.kind == "" && !bad {
		var names []string
		for _, r := range faultRules {
			names = append(names, string(r.kind))
		}
		b.add(at, "a fault of no kind; known are: %s", strings.Join(names, ", "))
	}
	return found, found.kind != ""
}

// faultLength reads for: a duration, or two with dots between them, of which
// each occurrence draws one.
func (b *builder) faultLength(rule faultRule, w faultFields, at *token.Token, f *Fault) {
	switch {
	case rule.lasts == never && w.length.set():
		b.add(w.length.at, "a %s does not last: leave out for", rule.kind)
		return
	case rule.lasts != always && !w.length.set():
		return
	}
	least, most, ranged := strings.Cut(w.length.text, "..")
	s := w.length
	s.text = least
	f.For = b.duration(s, at, "for", time.Millisecond)
	f.ForMost = f.For
	if !ranged {
		return
	}
	if !rule.recurs {
		b.add(w.length.at, "for is %s: the length of a %s is one duration", w.length.text, rule.kind)
		return
	}
	s.text = most
	f.ForMost = b.duration(s, at, "for", time.Millisecond)
	if f.ForMost > 0 && f.ForMost < f.For {
		b.add(w.length.at, "for is %s: the shorter one comes first", w.length.text)
	}
}

// faultRecurrence reads every, until and times. An occurrence ends before the
// next of the same item begins.
func (b *builder) faultRecurrence(rule faultRule, w faultFields, f *Fault) {
	for _, s := range []struct {
		name string
		scalar
	}{{"every", w.every}, {"until", w.until}, {"times", w.times}} {
		switch {
		case !s.set():
		case !rule.recurs:
			b.add(s.at, "a %s comes once: leave out %s, and write an item for each", rule.kind, s.name)
			return
		case !w.every.set():
			b.add(s.at, "%s without every: say how often the fault comes, like `every: 200ms`", s.name)
			return
		}
	}
	if !w.every.set() {
		return
	}
	if w.until.set() && w.times.set() {
		b.add(w.times.at, "until and times both end it: leave one out")
	}
	f.Every = b.duration(w.every, nil, "every", time.Millisecond)
	if w.until.set() {
		f.Until = b.duration(w.until, nil, "until", time.Millisecond)
	}
	if w.times.set() {
		f.Times = b.count(w.times, nil, "times", 1, MaxTimes)
	}
	switch {
	case f.Every > 0 && f.Every < f.ForMost:
		b.add(w.every.at, "every is %s: one %s of %s has to end before the next begins", f.Every, f.Kind, f.ForMost)
	case rule.lasts == optional && !w.length.set():
		b.add(w.every.at, "every without for: a %s without for lasts to the end", f.Kind)
	}
}

// faultOwn reads the field that only one kind has.
func (b *builder) faultOwn(rule faultRule, w faultFields, at *token.Token, f *Fault) {
	for _, r := range faultRules {
		if r.own != "" && r.own != rule.own && w.own[r.own].set() {
			b.add(w.own[r.own].at, "%s belongs to a %s, and this is a %s", r.own, r.kind, rule.kind)
		}
	}
	switch rule.own {
	case "amount":
		f.Amount = b.duration(*w.own[rule.own], at, rule.own, time.Microsecond)
		if f.Amount > MaxDelay {
			b.add(w.own[rule.own].at, "amount is %s: give at most %s", f.Amount, MaxDelay)
		}
	case "bytes_per_second":
		f.BytesPerSecond = b.size(*w.own[rule.own], at, rule.own, units.KiB, 1<<40)
	case "restart_after":
		f.RestartAfter = b.duration(*w.own[rule.own], at, rule.own, 0)
		if f.Every > 0 && f.Every < f.RestartAfter {
			b.add(w.every.at, "every is %s: a node is started again %s after it was killed, and only then killed again", f.Every, f.RestartAfter)
		}
	}
}
