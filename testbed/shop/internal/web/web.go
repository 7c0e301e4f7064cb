// Package web shows the shop to people and probes.
package web

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// queryLimit bounds each page: a lost database gives an answer, not a hanging browser.
const queryLimit = 2 * time.Second

// Database is what the pages need of a connection pool.
type Database interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Count is what is known about all orders.
type Count struct {
	Count int64      `json:"count"`
	MaxID int64      `json:"maxID"`
	Last  *time.Time `json:"last"`
}

// Shop serves the pages.
type Shop struct {
	Database Database
	// Title and Pod say on the page which shop and which of its pods answered.
	Title, Pod string
	Log        *slog.Logger
}

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>{{.Title}}</title></head>
<body style="font-family: sans-serif; margin: 4em auto; max-width: 40em">
<h1>{{.Title}}</h1>
{{with .Orders}}<p><strong id="count">{{.Count}}</strong> orders{{with .Last}}, the last one placed at
<time id="last">{{.Format "2006-01-02 15:04:05.000"}}</time> UTC{{end}}.</p>
{{else}}<p id="down">The orders cannot be read at the moment.</p>
{{end}}<p><small>Answered by {{.Pod}}.</small></p>
</body>
</html>
`))

// Handler routes the pages: /, /orders/count, /healthz and /readyz.
func (s *Shop) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /orders/count", s.count)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	return mux
}

func (s *Shop) home(w http.ResponseWriter, r *http.Request) {
	orders, err := s.orders(r.Context())
	data := struct {
		Title, Pod string
		Orders     *Count
	}{s.Title, s.Pod, orders}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err != nil {
		s.Log.Warn("home page without orders", "err", err)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = page.Execute(w, data) // the client is gone; nothing to tell it
}

func (s *Shop) count(w http.ResponseWriter, r *http.Request) {
	orders, err := s.orders(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(orders)
}

func (s *Shop) orders(ctx context.Context) (*Count, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	var c Count
	row := s.Database.QueryRow(ctx, "select count(*), coalesce(max(id), 0), max(placed_at) from orders")
	if err := row.Scan(&c.Count, &c.MaxID, &c.Last); err != nil {
		return nil, fmt.Errorf("count orders: %w", err)
	}
	if c.Last != nil {
		utc := c.Last.UTC()
		c.Last = &utc
	}
	return &c, nil
}

func (s *Shop) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	if _, err := s.Database.Exec(ctx, "select 1 from orders limit 1"); err != nil {
		http.Error(w, "reach database: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
