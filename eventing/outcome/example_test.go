package outcome_test

import (
	"fmt"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

func ExampleParse() {
	body := outcome.Append(nil, []outcome.Outcome{
		{Kind: outcome.Committed, Won: true},
		{Kind: outcome.Rejected, Status: 422, Reason: "origin: missing"},
		{Kind: outcome.Pending},
	})
	fmt.Println(string(body))

	outcomes, err := outcome.Parse(body, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, o := range outcomes {
		fmt.Printf("%s %q\n", o.Kind, o.Reason)
	}
	// Output:
	// [{"kind":"committed","receipt":"won"},{"kind":"rejected","status":422,"reason":"origin: missing"},{"kind":"pending"}]
	// committed ""
	// rejected "origin: missing"
	// pending ""
}
