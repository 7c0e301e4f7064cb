package ledger

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/testbed/shop/order"
)

func ack(id int64, at time.Time) order.Ack {
	return order.Ack{ID: id, At: at, Checksum: order.New(id, at).Checksum}
}

func TestLedgerKeepsWhatItConfirmed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	for i := range int64(50) {
		wg.Go(func() {
			a := ack(i+1, start.Add(time.Duration(i)*time.Second))
			for range 2 { // a writer that heard no answer reports again
				if err := l.Add([]order.Ack{a}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"id":99,"at"`); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()

	l, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := Stats{Count: 50, MaxID: 50, Last: start.Add(49 * time.Second)}
	if got := l.Stats(); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
	if got := len(l.Before(start.Add(10 * time.Second))); got != 10 {
		t.Errorf("Before(+10s) has %d entries, want 10", got)
	}
}

func TestLedgerOverHTTP(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := httptest.NewServer(l.Handler())
	defer server.Close()
	at := time.Date(2026, 1, 1, 0, 0, 0, 123456000, time.UTC)
	body, _ := json.Marshal([]order.Ack{ack(1, at), ack(1, at.Add(time.Minute))})
	resp, err := http.Post(server.URL+"/acks", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("POST /acks: %s", resp.Status)
	}
	q := url.Values{"before": {at.Add(time.Second).Format(time.RFC3339Nano)}}
	resp, err = http.Get(server.URL + "/acks?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []order.Ack
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != ack(1, at) {
		t.Errorf("GET /acks = %v, want the first order alone", got)
	}
}
