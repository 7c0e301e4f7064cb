package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Ack is one order that the database acknowledged, as the ledger outside the
// clusters wrote it down.
type Ack struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"` // when the commit was acknowledged
	Checksum string    `json:"checksum"`
}

// Ledger asks the ledger server what was acknowledged.
type Ledger struct {
	URL    string
	Client *http.Client
}

// All returns every order that was acknowledged.
func (l Ledger) All(ctx context.Context) ([]Ack, error) {
	var acks []Ack
	return acks, l.get(ctx, "/acks", &acks)
}

// Stats are the ledger's totals.
type Stats struct {
	Count int64     `json:"count"`
	MaxID int64     `json:"maxID"`
	Last  time.Time `json:"last"`
}

// Stats returns the totals.
func (l Ledger) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	return s, l.get(ctx, "/stats", &s)
}

func (l Ledger) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL+path, nil)
	if err != nil {
		return fmt.Errorf("ask ledger: %w", err)
	}
	resp, err := l.Client.Do(req)
	if err != nil {
		return fmt.Errorf("ask ledger: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask ledger for %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read ledger's answer: %w", err)
	}
	return nil
}
