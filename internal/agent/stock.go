package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/internal/kube/larder"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

const (
	// stockEvery is how often nodes pull what a plan needs although nothing new is needed: a
	// node may be new, or have dropped an image that nothing runs.
	stockEvery = time.Hour
	// stockPatience bounds one plan's pull, and stockEach one pod's of it.
	stockPatience, stockEach = 30 * time.Minute, 10 * time.Minute
)

// stock is what nodes were last told to pull.
type stock struct {
	mu   sync.Mutex
	busy bool
	told map[string]told // by plan
}

type told struct {
	images string
	at     time.Time
}

// due tells whether a plan's images are to be pulled now, and notes that they are. One
// plan's are at a time; the others come with the next look.
func (s *stock) due(plan string, images []string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(images, " ")
	last := s.told[plan]
	if s.busy || len(images) == 0 || last.images == all && now.Sub(last.at) < stockEvery {
		return false
	}
	if s.told == nil {
		s.told = map[string]told{}
	}
	s.busy, s.told[plan] = true, told{all, now}
	return true
}

func (s *stock) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

// fill has this site's nodes pull what runs of a plan need here, where the plan says so, with the
// rights of the account that restores. Nothing waits for it.
func (h *herald) fill(ctx context.Context, p *plan.Plan, needs []preflight.Need) {
	if !p.Pull {
		return
	}
	c, err := client.New(h.restorer.RESTConfig, client.Options{Scheme: h.client.Scheme(), Mapper: h.client.RESTMapper()})
	if err != nil {
		h.log.Warn("pull images: act as davit-restore", "error", err)
		return
	}
	images, err := larder.ForPlan(ctx, c, p, h.pool.self.Site, needs, "")
	if err != nil {
		h.log.Warn("pull images", "plan", p.Name, "error", err)
		return
	}
	if !h.stock.due(p.Name, images, h.pool.now()) {
		return
	}
	go func() {
		defer h.stock.over()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stockPatience)
		defer cancel()
		nodes, err := larder.Pull(ctx, c, larder.Options{Images: images, Limit: stockEach})
		if err == nil {
			err = larder.Record(ctx, c, nodes, h.pool.now())
		}
		lacking := slices.DeleteFunc(slices.Clone(nodes), func(n larder.Node) bool { return n.Missing() == 0 })
		switch {
		case err != nil:
			h.log.Warn("pull images", "plan", p.Name, "error", err)
		case len(lacking) > 0:
			n := lacking[0]
			i := slices.IndexFunc(n.Images, func(i larder.Image) bool { return !i.Present })
			h.log.Warn("nodes lack images", "plan", p.Name, "nodes", len(lacking), "node", n.Name, "image", n.Images[i].Name, "why", n.Images[i].Why)
		default:
			h.log.Info("nodes have all images", "plan", p.Name, "images", len(images), slog.Int("nodes", len(nodes)))
		}
	}()
}
