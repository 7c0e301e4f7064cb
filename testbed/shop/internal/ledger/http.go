package ledger

import (
	"encoding/json"
	"net/http"
	"time"

	"davit.dev/davit/testbed/shop/order"
)

// bodyMost bounds one report.
const bodyMost = 16 << 20

// Handler serves the ledger:
//
//	POST /acks                   a JSON list of acknowledgements; 204 when they are on disk
//	GET  /acks?before=RFC3339    those acknowledged before a time; all without it
//	GET  /stats                  {"count", "maxID", "last"}
//	GET  /healthz
func (l *Ledger) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /acks", l.postAcks)
	mux.HandleFunc("GET /acks", l.getAcks)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { reply(w, l.Stats()) })
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return mux
}

func (l *Ledger) postAcks(w http.ResponseWriter, r *http.Request) {
	var acks []order.Ack
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyMost)).Decode(&acks); err != nil {
		http.Error(w, "read acknowledgements: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := l.Add(acks); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (l *Ledger) getAcks(w http.ResponseWriter, r *http.Request) {
	var before time.Time
	if text := r.URL.Query().Get("before"); text != "" {
		var err error
		if before, err = time.Parse(time.RFC3339Nano, text); err != nil {
			http.Error(w, "read before: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	reply(w, l.Before(before))
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the client is gone; nothing to tell it
}
