package writer

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"davit.dev/davit/testbed/shop/order"
)

// TestReporterOutlastsTheLedger refuses the first reports and then takes them: none is missing, none out of order.
func TestReporterOutlastsTheLedger(t *testing.T) {
	const orders = 3 * batchMost / 2
	refuse := 2
	got := make(chan order.Ack, 2*orders)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse > 0 { // one request at a time: the reporter waits for each answer
			refuse--
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		var batch []order.Ack
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
			t.Error(err)
		}
		for _, ack := range batch {
			got <- ack
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	r := NewReporter(server.URL, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	for id := range int64(orders) {
		r.Report(order.Ack{ID: id + 1, At: time.Unix(id, 0).UTC()})
	}
	for id := range int64(orders) {
		if ack := <-got; ack.ID != id+1 {
			t.Fatalf("order %d arrived in the place of %d", ack.ID, id+1)
		}
	}
	cancel()
	<-done
	if left := r.Waiting(); left != 0 {
		t.Errorf("%d acknowledgements wait although all have arrived", left)
	}
}

// TestReporterDrains tells the writer to stop right after its last order: that one is reported too.
func TestReporterDrains(t *testing.T) {
	got := make(chan []order.Ack, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch []order.Ack
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
			t.Error(err)
		}
		got <- batch
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	r := NewReporter(server.URL, slog.New(slog.DiscardHandler))
	r.Report(order.Ack{ID: 1})
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(stopped)
	if batch := <-got; len(batch) != 1 || batch[0].ID != 1 {
		t.Errorf("the ledger heard %v, want order 1", batch)
	}
}
