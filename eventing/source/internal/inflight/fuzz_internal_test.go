package inflight

import (
	"fmt"
	"testing"
)

// FuzzTable runs scripts of the model: in any order of operations, every message has one
// owner and a reason to wait, and is finished at the end.
func FuzzTable(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomScript(seed, 100*int(1+seed)))
	}
	f.Fuzz(runModel)
}

func TestNothingThatIsDueStandsStill(t *testing.T) {
	isModel(t)
	t.Parallel()

	seeds := uint64(3000)
	if testing.Short() {
		seeds = 300
	}
	const workers = 8
	for worker := range uint64(workers) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()

			for seed := worker; seed < seeds && !t.Failed(); seed += workers {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					runModel(t, randomScript(seed, 50+int(seed%40)*50))
				})
			}
		})
	}
}
