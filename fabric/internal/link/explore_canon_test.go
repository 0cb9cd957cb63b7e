package link

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// canon writes a state down as bytes, the same for two states exactly if no
// step that follows could tell them apart. It walks every field there is, so
// that one which is added counts without a word here; what does not count is
// listed, in immaterial. Pointers are written as the order in which they were
// met: where things lie in memory makes no difference, who shares them does.
type canon struct {
	out  []byte
	seen []sight
}

// sight is something that a pointer led to. A struct and its first field lie at
// the same place, so the type tells them apart.
type sight struct {
	at unsafe.Pointer
	as *canonWriter
}

// immaterial are the fields that no later step depends on, or that rewrites
// says in another way.
var immaterial = map[reflect.Type][]string{
	// Only the goroutines that drive a core have use for these.
	reflect.TypeFor[Link](): {"cfg", "mu", "conn", "sleeping", "prompt", "carry", "heard", "silent", "cause", "wake", "wg"},
	// The configuration is one for all states, counters are for people, and of
	// pings only who asks knows the number. No connection lasts long enough here
	// for its age to matter. Nobody here waits for the end of a stream.
	reflect.TypeFor[core](): {"cfg", "link", "stats", "nonce", "uptime", "parting"},
	// How long a stream was idle is a choice at every tick here, and a consumer
	// that went away always comes back in time.
	reflect.TypeFor[SendStream](): {"link", "blocked", "quiet", "away"},
	reflect.TypeFor[RecvStream](): {"link", "tail"},
	reflect.TypeFor[Inbox]():      {"mu", "owner", "wake", "gen", "taken", "pos"},
	reflect.TypeFor[queue]():      {"chunks", "head", "cur"},
	reflect.TypeFor[waiter]():     {"ready", "from"},
	// A Flush is done when it is not among those of the core any more.
	reflect.TypeFor[flusher]():     {"done"},
	reflect.TypeFor[smallStream](): {"flushed"},
	// One for all states, and none in a state that is followed up.
	reflect.TypeFor[smallWorld](): {"cfg", "trouble"},
}

// rewrites say what of a value's fields counts where it is less than all of it.
var rewrites = map[reflect.Type]func(c *canon, at unsafe.Pointer){
	reflect.TypeFor[RecvStream](): func(c *canon, at unsafe.Pointer) {
		r := (*RecvStream)(at)
		if r.inbox == nil || r.tail.gen != r.inbox.gen {
			c.number(0)
			return
		}
		c.number(uint64(r.tail.at) + 1)
	},
	reflect.TypeFor[Inbox](): func(c *canon, at unsafe.Pointer) {
		in := (*Inbox)(at)
		rest := in.taken[in.pos:]
		writeItems(c, unsafe.Pointer(&rest))
	},
	reflect.TypeFor[waiter](): func(c *canon, at unsafe.Pointer) {
		c.number(uint64(len((*waiter)(at).ready)))
	},
	reflect.TypeFor[queue](): func(c *canon, at unsafe.Pointer) {
		q := (*queue)(at)
		rest := q.chunks[q.head:]
		writeChunks(c, unsafe.Pointer(&rest))
		c.number(uint64(q.cur - q.head))
	},
}

type canonWriter func(c *canon, at unsafe.Pointer)

var (
	canonWriters = map[reflect.Type]*canonWriter{}
	canonMu      sync.RWMutex

	writeItems, writeChunks, writeSmallWorld canonWriter
)

func init() {
	writeItems = *canonWriterOf(reflect.TypeFor[[]item]())
	writeChunks = *canonWriterOf(reflect.TypeFor[[]*chunk]())
	writeSmallWorld = *canonWriterOf(reflect.TypeFor[smallWorld]())
}

func (c *canon) number(n uint64) { c.out = binary.AppendUvarint(c.out, n) }

func (c *canon) text(s string) {
	c.number(uint64(len(s)))
	c.out = append(c.out, s...)
}

// canonWriterOf returns what writes values of type t, made once. It is a
// pointer because a type may lead back to itself.
func canonWriterOf(t reflect.Type) *canonWriter {
	canonMu.RLock()
	w := canonWriters[t]
	canonMu.RUnlock()
	if w != nil {
		return w
	}
	canonMu.Lock()
	defer canonMu.Unlock()
	return makeCanonWriter(t)
}

func makeCanonWriter(t reflect.Type) *canonWriter {
	if w := canonWriters[t]; w != nil {
		return w
	}
	w := new(canonWriter)
	canonWriters[t] = w
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Uint8:
		*w = func(c *canon, at unsafe.Pointer) { c.out = append(c.out, *(*uint8)(at)) }
	case reflect.Int16, reflect.Uint16:
		*w = func(c *canon, at unsafe.Pointer) { c.number(uint64(*(*uint16)(at))) }
	case reflect.Int32, reflect.Uint32:
		*w = func(c *canon, at unsafe.Pointer) { c.number(uint64(*(*uint32)(at))) }
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64:
		*w = func(c *canon, at unsafe.Pointer) { c.number(*(*uint64)(at)) }
	case reflect.String:
		*w = func(c *canon, at unsafe.Pointer) { c.text(*(*string)(at)) }
	case reflect.Pointer:
		elem := makeCanonWriter(t.Elem())
		*w = func(c *canon, at unsafe.Pointer) { c.pointer(*(*unsafe.Pointer)(at), elem) }
	case reflect.Slice:
		*w = sliceWriter(t.Elem())
	case reflect.Array:
		elem, size, n := makeCanonWriter(t.Elem()), t.Elem().Size(), t.Len()
		*w = func(c *canon, at unsafe.Pointer) {
			for i := range n {
				(*elem)(c, unsafe.Add(at, uintptr(i)*size))
			}
		}
	case reflect.Struct:
		*w = structWriter(t)
	case reflect.Map:
		*w = mapWriter(t)
	case reflect.Interface:
		*w = func(c *canon, at unsafe.Pointer) { c.dynamic(reflect.NewAt(t, at).Elem().Elem()) }
	default:
		panic(fmt.Sprintf("a %v in what is explored: say in immaterial why it does not count", t))
	}
	return w
}

func (c *canon) pointer(p unsafe.Pointer, elem *canonWriter) {
	if p == nil {
		c.number(0)
		return
	}
	if i := slices.Index(c.seen, sight{p, elem}); i >= 0 {
		c.number(uint64(i) + 2)
		return
	}
	c.seen = append(c.seen, sight{p, elem})
	c.number(1)
	(*elem)(c, p)
}

// dynamic writes what an interface holds.
func (c *canon) dynamic(v reflect.Value) {
	if !v.IsValid() {
		c.text("")
		return
	}
	if v.Kind() != reflect.Pointer {
		panic(fmt.Sprintf("a %v in an interface that is explored", v.Type()))
	}
	c.text(v.Type().String())
	p := v.UnsafePointer()
	(*canonWriterOf(v.Type()))(c, unsafe.Pointer(&p))
}

func sliceWriter(elem reflect.Type) canonWriter {
	if elem.Kind() == reflect.Uint8 {
		return func(c *canon, at unsafe.Pointer) {
			c.text(unsafe.String(unsafe.SliceData(*(*[]byte)(at)), len(*(*[]byte)(at))))
		}
	}
	write, size := makeCanonWriter(elem), elem.Size()
	return func(c *canon, at unsafe.Pointer) {
		s := *(*[]struct{})(at) // the length is where that of any slice is
		c.number(uint64(len(s)))
		for i := range s {
			(*write)(c, unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), uintptr(i)*size))
		}
	}
}

func structWriter(t reflect.Type) canonWriter {
	type part struct {
		offset uintptr
		write  *canonWriter
	}
	var parts []part
	omit := slices.Clone(immaterial[t])
	for i := range t.NumField() {
		f := t.Field(i)
		if n := slices.Index(omit, f.Name); n >= 0 {
			omit = slices.Delete(omit, n, n+1)
		} else if f.Type.Size() > 0 {
			parts = append(parts, part{f.Offset, makeCanonWriter(f.Type)})
		}
	}
	if len(omit) > 0 {
		panic(fmt.Sprintf("%v has no fields %v, which immaterial names", t, omit))
	}
	rewrite := rewrites[t]
	return func(c *canon, at unsafe.Pointer) {
		for i := range parts {
			(*parts[i].write)(c, unsafe.Add(at, parts[i].offset))
		}
		if rewrite != nil {
			rewrite(c, at)
		}
	}
}

// mapWriter writes maps by the bytes of their keys.
func mapWriter(t reflect.Type) canonWriter {
	key, elem := makeCanonWriter(t.Key()), makeCanonWriter(t.Elem())
	return func(c *canon, at unsafe.Pointer) {
		m := reflect.NewAt(t, at).Elem()
		c.number(uint64(m.Len()))
		if m.Len() == 0 {
			return
		}
		type entry struct {
			key   string
			value reflect.Value
		}
		var list []entry
		k := reflect.New(t.Key())
		for i := m.MapRange(); i.Next(); {
			k.Elem().SetIterKey(i)
			n := len(c.out)
			(*key)(c, k.UnsafePointer())
			list = append(list, entry{string(c.out[n:]), i.Value()})
			c.out = c.out[:n]
		}
		slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		v := reflect.New(t.Elem())
		for _, e := range list {
			c.out = append(c.out, e.key...)
			v.Elem().Set(e.value)
			(*elem)(c, v.UnsafePointer())
		}
	}
}
