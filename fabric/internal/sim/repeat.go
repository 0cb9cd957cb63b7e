package sim

import "github.com/zfab/zfab/fabric/internal/wire"

// The protocol lets a producer's end send again what was stored before, whole or
// in part: the consumer's end drops it. The product does not, as it is told where
// to go on; others may. So a world can have networks that make packets look like
// those of such a peer.

// repeater is what an end has just written, so that it can be written again.
type repeater struct {
	last wire.Record // data or fragment, with a body of its own; else NoKind
}

// again returns packet p as a peer may write it that sends more than it must:
// twice, or beginning with the record before.
func (r *repeater) again(d dice, p []byte) [][]byte {
	if r.last.Kind == 0 {
		r.last.Kind = wire.NoKind
	}
	if halves := overlap(d, p); halves != nil {
		r.last.Kind = wire.NoKind
		return halves
	}
	out := make([]byte, 0, len(p))
	control, merged := false, false
	for rest := p; len(rest) > 0; {
		var rec wire.Record
		next, err := wire.Next(rest, 0, &rec)
		if err != nil {
			return [][]byte{p} // somebody else will say so
		}
		raw := rest[:len(rest)-len(next)]
		rest = next
		switch rec.Kind {
		case wire.KindData, wire.KindFragment:
			before := len(out)
			if d.percent(30) {
				out = r.merge(out, &rec)
			}
			if merged = merged || len(out) > before; len(out) == before {
				out = append(out, raw...)
			}
			r.last = rec
			r.last.Body = append([]byte(nil), rec.Body...)
		case wire.KindEnd:
			out = append(out, raw...)
		default:
			control = true
			out = append(out, raw...)
			r.last.Kind = wire.NoKind // streams may begin and end
		}
	}
	if len(out) > wire.MaxPacket {
		return [][]byte{p}
	}
	if control || merged || d.percent(70) {
		return [][]byte{out}
	}
	return [][]byte{out, append([]byte(nil), out...)}
}

// overlap is a packet with one fragment as two, which have something in common.
func overlap(d dice, p []byte) [][]byte {
	var rec wire.Record
	if rest, err := wire.Next(p, 0, &rec); err != nil || len(rest) > 0 || rec.Kind != wire.KindFragment || len(rec.Body) < 4 || d.percent(50) {
		return nil
	}
	end := d.from(2, len(rec.Body)-1)
	from := d.IntN(end)
	half := func(from, to int) []byte {
		h := wire.AppendFragmentHeader(nil, rec.Stream, rec.Producer, rec.Seq, rec.Total, rec.Offset+uint32(from), to-from)
		return append(h, rec.Body[from:to]...)
	}
	return [][]byte{half(0, end), half(from, len(rec.Body))}
}

// merge appends one record that holds the last one and rec, if they follow each
// other.
func (r *repeater) merge(out []byte, rec *wire.Record) []byte {
	last := &r.last
	if last.Kind != rec.Kind || last.Stream != rec.Stream || last.Producer != rec.Producer {
		return out
	}
	switch {
	case rec.Kind == wire.KindData && last.Seq+uint64(last.Count) == rec.Seq &&
		last.Count+rec.Count <= wire.MaxRun && last.Bytes+rec.Bytes <= wire.MaxFragment:
		out = wire.AppendDataHeader(out, rec.Stream, rec.Producer, last.Seq, last.Count+rec.Count)
	case rec.Kind == wire.KindFragment && last.Seq == rec.Seq && int(last.Offset)+len(last.Body) == int(rec.Offset) &&
		len(last.Body)+len(rec.Body) <= wire.MaxFragment:
		out = wire.AppendFragmentHeader(out, rec.Stream, rec.Producer, rec.Seq, rec.Total, last.Offset, len(last.Body)+len(rec.Body))
	default:
		return out
	}
	out = append(out, last.Body...)
	return append(out, rec.Body...)
}
