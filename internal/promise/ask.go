package promise

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"davit.dev/davit/internal/fence"
)

const (
	// Path is where a peer is asked.
	Path = "/v1/promise"
	// longest bounds questions and answers, in bytes.
	longest = 4 << 10
)

// Question asks a peer to stay passive for a lease.
type Question struct {
	// Vault and Project are the ids of the vault and of the project's first data key.
	Vault   string `json:"vault"`
	Project string `json:"project"`
	// Application is its name in the vault, Epoch the one under which Site holds it.
	Application string `json:"application"`
	Epoch       int64  `json:"epoch"`
	Site        string `json:"site"`
}

// Answer says what was asked, so that no other question's is taken for it.
type Answer struct {
	Question

	// Cluster is that of the site whose node answers: others may bear its name, or have borne it.
	Cluster  string `json:"cluster"`
	Promised bool   `json:"promised"`
	Why      string `json:"why,omitempty"` // not
}

// ErrRefused says that a peer promises nothing.
var ErrRefused = errors.New("promises nothing")

// All asks every peer at once, and is nil once each has promised. One that is silent, that is not who it should be, or
// that does not say yes to this very question, refuses. The caller's lease counts from before the call.
func All(ctx context.Context, k Keys, app string, epoch int64, peers []fence.Peer, now func() time.Time) error {
	if len(peers) == 0 {
		return fmt.Errorf("nobody was asked: %w", ErrRefused)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make([]error, len(peers))
	var all sync.WaitGroup
	for i, peer := range peers {
		all.Go(func() {
			if said[i] = Ask(ctx, k, app, epoch, peer, now); said[i] != nil {
				said[i] = fmt.Errorf("peer %s at %s: %w", peer.Site, peer.Address, said[i])
				cancel() // the others' answers would not help any more
			}
		})
	}
	all.Wait()
	for _, err := range said {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(said...)
}

// Ask asks one peer, under the newest key first: a site may not have taken it up yet. It is nil where the peer
// promises.
func Ask(ctx context.Context, k Keys, app string, epoch int64, peer fence.Peer, now func() time.Time) error {
	err := errors.New("no key of the project is known yet")
	for _, a := range k.authorities {
		if err = a.ask(ctx, k, Question{Vault: k.Vault, Project: k.Project, Application: app, Epoch: epoch, Site: k.Site}, peer, now); err == nil || errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (a authority) ask(ctx context.Context, k Keys, q Question, peer fence.Peer, now func() time.Time) error {
	config, err := a.config(k.Site, now)
	if err != nil {
		return err
	}
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if who, err := bearer(&s); err != nil || who != peer.Site {
			return errors.Join(err, fmt.Errorf("it is site %q", who))
		}
		return nil
	}
	// One connection for one question: nothing half-dead is used again.
	client := http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode question: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer.Address+Path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer response.Body.Close()
	var answer Answer
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, longest)).Decode(&answer); err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	switch {
	case answer.Question != q:
		return errors.New("it answered another question")
	case peer.Cluster == "" || answer.Cluster != peer.Cluster:
		return fmt.Errorf("it is cluster %q, and the claim names %q: if it took that one's place, arm the plan again", answer.Cluster, peer.Cluster)
	case !answer.Promised:
		return fmt.Errorf("it %w: %s", ErrRefused, answer.Why)
	}
	return nil
}
