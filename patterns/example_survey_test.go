package patterns_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/patterns"
)

// All nodes are asked for their load; one of them does not answer in time.
func ExampleSurveyor() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir := directory.NewRegistry() // a *directory.Client where nodes are processes
	for name, load := range map[string]int{"n1": 20, "n2": 50, "slow": 0} {
		node, err := fabric.Open(ctx, fabric.Config{Name: name, Directory: dir})
		if err != nil {
			log.Fatal(err)
		}
		defer node.Close()
		respondent, err := patterns.OpenRespondent(ctx, node, patterns.RespondentConfig[string, int]{Channel: "loads"},
			func(ctx context.Context, _ string) (int, error) {
				if load == 0 {
					<-ctx.Done() // busy until nobody waits any more
				}
				return load, ctx.Err()
			})
		if err != nil {
			log.Fatal(err)
		}
		defer respondent.Close()
	}
	node, err := fabric.Open(ctx, fabric.Config{Name: "asks", Directory: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	loads, err := patterns.OpenSurveyor(ctx, node, patterns.SurveyorConfig[string, int]{Channel: "loads"})
	if err != nil {
		log.Fatal(err)
	}
	defer loads.Close()
	if err := loads.WaitRespondents(ctx, 3); err != nil {
		log.Fatal(err)
	}

	limited, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	survey := loads.Ask(limited, "cpu", patterns.SurveyOptions{})
	sum := 0
	for answer, err := range survey.Answers() {
		if err != nil {
			fmt.Println(answer.From, "failed:", err) // and the others go on
			continue
		}
		sum += answer.Value
	}
	result := survey.Result()
	fmt.Println("sum:", sum)
	fmt.Printf("%d of %d answered, not %s\n", len(result.Answered), result.Asked(), result.Missing)
	// Output:
	// sum: 70
	// 2 of 3 answered, not [slow/0]
}
