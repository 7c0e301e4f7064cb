package writer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"davit.dev/davit/testbed/shop/order"
)

const (
	// bufferMost is how many acknowledgements wait for an unreachable ledger before the oldest are given up: hours.
	bufferMost = 1_000_000
	batchMost  = 500
	postLimit  = 3 * time.Second
	// drainLimit is how long the last ones may take when the writer is told to stop.
	drainLimit = 5 * time.Second
)

// Reporter carries acknowledgements to the ledger. Report never blocks; what cannot be sent waits in memory.
type Reporter struct {
	url    string
	client *http.Client
	log    *slog.Logger

	mu      sync.Mutex
	waiting []order.Ack
	dropped int64
	wake    chan struct{}
}

// NewReporter returns a reporter for the ledger at url.
func NewReporter(url string, log *slog.Logger) *Reporter {
	return &Reporter{url: url, client: &http.Client{Timeout: postLimit}, log: log, wake: make(chan struct{}, 1)}
}

// Report queues one acknowledgement.
func (r *Reporter) Report(ack order.Ack) {
	r.mu.Lock()
	if len(r.waiting) >= bufferMost {
		r.waiting = r.waiting[1:]
		r.dropped++
	}
	r.waiting = append(r.waiting, ack)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends, and then what is left for a few seconds more.
func (r *Reporter) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.wake:
			r.sendAll(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	r.sendAll(last)
}

// sendAll sends until nothing waits or ctx ends. It tries again and again: the ledger knows duplicates.
func (r *Reporter) sendAll(ctx context.Context) {
	pause := retryFirst
	for {
		batch := r.head()
		if len(batch) == 0 || ctx.Err() != nil {
			return
		}
		err := r.post(ctx, batch)
		if err == nil {
			r.drop(batch)
			pause = retryFirst
			continue
		}
		r.log.Warn("ledger did not answer; keeping acknowledgements", "waiting", r.Waiting(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
	}
}

func (r *Reporter) head() []order.Ack {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]order.Ack(nil), r.waiting[:min(len(r.waiting), batchMost)]...)
}

// drop removes what was sent. Report may have given up some of it meanwhile, so the first that stays is looked up.
func (r *Reporter) drop(sent []order.Ack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := sent[len(sent)-1]
	for i, ack := range r.waiting[:min(len(r.waiting), len(sent))] {
		if ack == last {
			r.waiting = r.waiting[i+1:]
			return
		}
	}
}

// Waiting is the number of acknowledgements the ledger does not have yet.
func (r *Reporter) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting)
}

func (r *Reporter) post(ctx context.Context, batch []order.Ack) error {
	body, err := json.Marshal(batch)
	if err != nil {
		return fmt.Errorf("encode acknowledgements: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/acks", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("address ledger: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("reach ledger: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("report to ledger: %s", resp.Status)
	}
	return nil
}
