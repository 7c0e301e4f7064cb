package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/orders"
)

const (
	// ordersEvery is how often orders of runs are looked for, and while there are
	// some.
	ordersEvery     = 5 * time.Second
	ordersEverySoon = time.Second
	// ordersSoonFor is how long a run may pause between two orders.
	ordersSoonFor = time.Minute
	ordersTimeout = 10 * time.Second
	sweepAnswers  = time.Hour
)

// servant carries out what runs order of this site, through every vault. It runs in
// the leader only.
type servant struct {
	reader   client.Reader
	pool     *pool
	actuator func(vault string) execute.Actuator
	log      *slog.Logger

	boxes map[string]*box // by Vault
}

// box is what lies in one vault for this site.
type box struct {
	receiver *orders.Receiver
	swept    time.Time
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *servant) NeedLeaderElection() bool { return true }

// Start looks for orders until ctx is done. What is being carried out then is
// carried out again by the next leader.
func (s *servant) Start(ctx context.Context) error {
	s.boxes = map[string]*box{}
	var last time.Time // when there was an order
	for {
		now := s.pool.now()
		if s.look(ctx, now) > 0 {
			last = now
		}
		wait := ordersEvery
		if now.Sub(last) < ordersSoonFor {
			wait = ordersEverySoon
		}
		select {
		case <-ctx.Done():
			for _, b := range s.boxes {
				b.receiver.Wait()
			}
			return nil
		case <-time.After(wait):
		}
	}
}

// look looks into all vaults side by side, so that a silent one keeps none
// waiting, and returns how many orders there are.
func (s *servant) look(ctx context.Context, now time.Time) int {
	var list v1alpha1.VaultList
	if err := s.reader.List(ctx, &list); err != nil {
		s.log.Warn("orders: list vaults", "error", err)
		return 0
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	found := 0
	for i := range list.Items {
		v := &list.Items[i]
		if v.Spec.CopyOf != "" {
			continue
		}
		b := s.box(ctx, v.Name)
		if b == nil {
			continue
		}
		all.Go(func() {
			n := s.lookInto(ctx, v.Name, b, now)
			mu.Lock()
			defer mu.Unlock()
			found += n
		})
	}
	all.Wait()
	return found
}

// box returns the receiver of a vault. A vault whose object changed gets a new
// one; what the old one is at goes on.
func (s *servant) box(ctx context.Context, name string) *box {
	e, err := s.pool.entry(ctx, name)
	if err != nil {
		s.log.Debug("orders: open vault", "vault", name, "error", err) // the Vault's own conditions say so
		return nil
	}
	b := s.boxes[name]
	if b == nil || b.receiver.Project != e.opened.Project {
		b = &box{swept: s.pool.now(), receiver: &orders.Receiver{Project: e.opened.Project, Site: s.pool.self.Site, Actuator: s.actuator(name)}}
		s.boxes[name] = b
	}
	return b
}

func (s *servant) lookInto(ctx context.Context, name string, b *box, now time.Time) int {
	n, err := b.receiver.Poll(ctx, ordersTimeout)
	if err != nil {
		s.log.Warn("orders: look into vault", "vault", name, "error", err)
	}
	if n > 0 {
		s.log.Info("orders of runs", "vault", name, "orders", n)
	}
	if now.Sub(b.swept) >= sweepAnswers {
		b.swept = now
		limited, cancel := context.WithTimeout(ctx, ordersTimeout)
		defer cancel()
		if err := b.receiver.Sweep(limited); err != nil {
			s.log.Warn("orders: sweep answers", "vault", name, "error", err)
		}
	}
	return n
}
