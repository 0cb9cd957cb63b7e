package report

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCountFaults(t *testing.T) {
	got := CountFaults([]FaultEvent{
		{InFlight: 10, Hit: true, Recovery: value(20)},
		{InFlight: 0, Detection: value(7900)},
		{InFlight: 30, Hit: true},
		{InFlight: 20, Hit: true, Recovery: value(5), Detection: value(7000)},
	})
	want := FaultCounts{
		Occurrences: 4, Hit: 3, HitRatio: 0.75, Unrecovered: 1,
		InFlight:  Quantiles{Count: 4, P50: 10, P99: 30, Max: 30},
		Recovery:  Quantiles{Count: 2, P50: 5, P99: 20, Max: 20},
		Detection: Quantiles{Count: 2, P50: 7000, P99: 7900, Max: 7900},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := CountFaults(nil); got != (FaultCounts{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestQuantiles(t *testing.T) {
	var values []float64
	for i := 200; i > 0; i-- {
		values = append(values, float64(i))
	}
	if q := quantiles(values); q != (Quantiles{Count: 200, P50: 100, P99: 198, Max: 200}) {
		t.Errorf("%+v", q)
	}
	if q := quantiles([]float64{7}); q != (Quantiles{Count: 1, P50: 7, P99: 7, Max: 7}) {
		t.Errorf("of one: %+v", q)
	}
	if ms := Milliseconds(1500 * time.Microsecond); ms != 1.5 {
		t.Errorf("%v ms", ms)
	}
}

func TestTableTellsOfFaults(t *testing.T) {
	cuts := CountFaults([]FaultEvent{{InFlight: 12, Hit: true, Recovery: value(21.5)}, {InFlight: 3, Hit: true}})
	hole := CountFaults([]FaultEvent{{InFlight: 5, Hit: true, Recovery: value(2), Detection: value(7800)}})
	r := Report{
		Messages: Messages{Sent: 10, InDoubt: 3, Unpromised: 2, Buried: 1},
		Faults: &Faults{FaultCounts: cuts, ThroughputRatio: value(0.93), Items: []Fault{
			{Fault: "cut random", FaultCounts: cuts}, {Fault: "blackhole n1->n2", FaultCounts: hole},
		}},
	}
	var out bytes.Buffer
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"cut random 2 2 3/12 21.5/21.5/21.5, 1 never -",
		"blackhole n1->n2 1 1 5/5 2.0/2.0/2.0 7800/7800",
		"all 2 2", "0.930 of the times between", "3 in doubt, 2 unpromised, 1 buried",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
