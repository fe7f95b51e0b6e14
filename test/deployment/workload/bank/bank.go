// Package bank is a function for chaos: transfers between accounts, whose sum is zero
// at every moment, and an event for each large transfer.
package bank

import (
	"context"
	"embed"
	"errors"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// The types of the input and output events.
const (
	Transferred = "com.example.bank.transferred"
	Noticed     = "com.example.bank.noticed"
)

// Large is the minimum amount for which an event is emitted.
const Large = 500

//go:embed *.sql
var migrations embed.FS

// Transfer is the data of an event.
type Transfer struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// Validate returns an error for an invalid transfer.
func (t Transfer) Validate() error {
	switch {
	case t.From == "" || t.To == "" || t.From == t.To:
		return errors.New("from, to: want two accounts")
	case t.Amount <= 0:
		return errors.New("amount: want more than 0")
	}
	return nil
}

// Function returns the function in one of its versions; all of them behave the
// same.
func Function(version string) functions.Function {
	return functions.Function{
		Name:       "bank",
		Version:    version,
		Types:      []string{Transferred},
		Handle:     functions.JSON(handle),
		Migrations: migrations,
	}
}

func handle(_ context.Context, e event.Event, t Transfer) (functions.Effects, error) {
	var fx functions.Effects
	fx.Insert("transfers", functions.Row{"source": e.Source(), "id": e.ID(), "sender": t.From, "receiver": t.To, "amount": t.Amount})
	fx.Add("accounts", functions.Row{"account": t.From}, functions.Row{"balance": -t.Amount, "transfers": 1})
	fx.Add("accounts", functions.Row{"account": t.To}, functions.Row{"balance": t.Amount, "transfers": 1})
	if t.Amount >= Large {
		fx.Emit(functions.Output{Type: Noticed, Subject: t.From, Data: t})
	}
	return fx, nil
}
