package sim

import "testing"

func BenchmarkSeeds(b *testing.B) {
	for i := range b.N {
		if r := Run(uint64(i)+1, nil); r.Failure != nil {
			b.Fatal(r.Failure)
		}
	}
}
