package promise

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"davit.dev/davit/internal/promise/hold"
)

const (
	// answerWithin bounds how long one answer may take.
	answerWithin = 5 * time.Second
	// atOnce bounds connections: whoever knocks costs the process that keeps this site's leases two certificates.
	// A peer that is kept out by others takes it for a refusal.
	atOnce = 64
)

// Server answers a site's peers. Any process of the site may: what it answers by, it reads in the cluster, each time.
type Server struct {
	// Holds reads the holds of a project from the API server itself, by its id: anew, from no cache. There being none is nil.
	Holds func(ctx context.Context, project string) (map[string]string, error)
	// Known is what this process knows of an application by itself: the newest epoch, and the newest that this
	// site ever held.
	Known func(app string) (newest, held int64)
	// Cluster is the UID of this cluster; empty while it is not known.
	Cluster func() string
	Now     func() time.Time

	mu   sync.Mutex
	keys map[string]Keys // by vault and project
}

// Learn gives the server the keys of a project.
func (s *Server) Learn(k Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]Keys{}
	}
	s.keys[k.Project] = k // of one vault: what it took the place of is not promised to any more
}

func (s *Server) known(project string) (Keys, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, is := s.keys[project]
	return k, is
}

// Serve answers until ctx is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, s.answer)
	server := &http.Server{
		Handler: http.TimeoutHandler(mux, answerWithin, "too slow"), ReadTimeout: answerWithin, WriteTimeout: 2 * answerWithin, IdleTimeout: time.Second, MaxHeaderBytes: longest,
		ErrorLog:  log.New(io.Discard, "", 0), // whoever knocks
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: s.config},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ServeTLS(netutil.LimitListener(l, atOnce), "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve promises: %w", err)
	}
	return nil
}

// config is that of the authority which the other side named.
func (s *Server) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	a, site := s.named(hello.ServerName)
	if a == nil {
		return nil, errors.New("no key of that project is known here")
	}
	return a.config(site, s.Now)
}

// named is the authority of a name, and this site's in its project; nil if there is none.
func (s *Server) named(name string) (a *authority, site string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		for i := range k.authorities {
			if k.authorities[i].name == name {
				return &k.authorities[i], k.Site
			}
		}
	}
	return nil, ""
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	var q Question
	if err := json.NewDecoder(io.LimitReader(r.Body, longest)).Decode(&q); err != nil {
		http.Error(w, "this is no question", http.StatusBadRequest)
		return
	}
	a := Answer{Question: q, Cluster: s.Cluster()}
	if err := s.refuses(r.Context(), q, r.TLS); err != nil {
		a.Why = err.Error()
	} else {
		a.Promised = true
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // an answer that does not arrive is none
}

// refuses says why nothing is promised.
func (s *Server) refuses(ctx context.Context, q Question, connection *tls.ConnectionState) error {
	k, is := s.known(q.Project)
	if !is || k.Vault != q.Vault {
		return errors.New("that vault is not followed here")
	}
	who, err := bearer(connection)
	switch {
	case err != nil:
		return err
	case !k.signed(connection):
		return errors.New("the certificate is of another project")
	case who != q.Site:
		return fmt.Errorf("the certificate is of site %q", who)
	case who == k.Site:
		return errors.New("this is that site itself")
	case q.Application == "" || q.Epoch < 1:
		return errors.New("nothing was asked for")
	}
	if newest, held := s.Known(q.Application); newest > q.Epoch || held >= q.Epoch {
		return fmt.Errorf("epoch %d is known here, of which this site held %d", newest, held)
	}
	data, err := s.Holds(ctx, q.Project)
	if err != nil {
		return fmt.Errorf("what is held here cannot be read: %w", err)
	}
	held, err := hold.Of(data, q.Application)
	switch {
	case err != nil:
		return err
	case held > q.Epoch:
		return fmt.Errorf("epoch %d was claimed for this site", held)
	}
	return nil
}

// signed tells whether the connection is of one of the project's authorities.
func (k Keys) signed(s *tls.ConnectionState) bool {
	for _, a := range k.authorities {
		if s.ServerName == a.name {
			return true
		}
	}
	return false
}
