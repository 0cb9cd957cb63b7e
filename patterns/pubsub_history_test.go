package patterns

import (
	"fmt"
	"testing"
)

// A publisher keeps as much of the past as it is configured to, in number and in
// bytes, and what it gives of it is in the order of publishing.
func TestHistoryIsBounded(t *testing.T) {
	h := history{messages: 3, topics: 2}
	for i := range 10 {
		h.add(moment{fmt.Sprint("t", i%4), []byte{byte(i)}})
	}
	all := []Filter{Prefix("")}
	bodies := func(list []moment) string {
		text := ""
		for _, m := range list {
			text += fmt.Sprint(m.topic, "=", m.body[0], " ")
		}
		return text
	}
	if got := bodies(h.lately(all, 5)); got != "t3=7 t0=8 t1=9 " {
		t.Errorf("the last three: %s", got)
	}
	if got := bodies(h.lately(all, 1)); got != "t1=9 " {
		t.Errorf("the last one: %s", got)
	}
	if got := bodies(h.retained(all)); got != "t0=8 t1=9 " {
		t.Errorf("the last of each of two topics: %s", got)
	}
	if h.lastBytes != 9 || h.valBytes != 6 || len(h.byTopic) != 2 {
		t.Errorf("%+v", h)
	}
	large := make([]byte, historyBytes/2)
	for i := range 3 {
		h.add(moment{fmt.Sprint("t", i), large})
	}
	if h.last.len != 1 || h.values.len != 1 || h.lastBytes > historyBytes || h.valBytes > historyBytes {
		t.Errorf("of large ones: %+v", h)
	}
	h.add(moment{"t", make([]byte, historyBytes)}) // too large to be kept
	if h.last.len+h.values.len+len(h.byTopic) != 0 || h.lastBytes+h.valBytes != 0 {
		t.Errorf("after one that is too large: %+v", h)
	}
}
