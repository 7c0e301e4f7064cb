package target

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// remembered is for how long a right that the account has is not asked for again:
// a run of many applications asks for each of them, several times, whether it may
// make the same few kinds. What it loses meanwhile the cluster refuses when it is
// used. What it lacks is asked for each time: somebody may be granting it.
const remembered = 30 * time.Second

// right is something that an account may do.
type right struct {
	verb, namespace string
	at              schema.GroupVersionResource
}

// rights are those that the account had a moment ago.
type rights struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[right]time.Time
}

func (r *rights) has(what right) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, has := r.seen[what]
	return has && r.now().Sub(seen) < remembered
}

func (r *rights) keep(what right, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[right]time.Time{}
	}
	for other, seen := range r.seen { // so that it does not grow with the namespaces of a long run
		if asked.Sub(seen) >= remembered {
			delete(r.seen, other)
		}
	}
	r.seen[what] = asked
}
