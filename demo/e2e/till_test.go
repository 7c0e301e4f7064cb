package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/demo/scenario"
)

// till is an application that is PostgreSQL under load: its writer places orders without pause,
// and a ledger beside the sites hears of each that was acknowledged, and at which site.
type till struct {
	*app
	address string // of the ledger
	mu      sync.Mutex
	acks    map[string][]scenario.Ack // by site
}

// tillWriter places orders in the database of a till, and may be in its namespace or beside it.
const tillWriter = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: writer, namespace: %[1]s}
spec:
  strategy: {type: Recreate} # orders are numbered by one writer
  selector: {matchLabels: {app: writer}}
  template:
    metadata: {labels: {app: writer}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: writer
        image: %[3]s
        imagePullPolicy: IfNotPresent
        args: [writer]
        env:
        - {name: SITE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: LEDGER_URL, value: "http://%[4]s/$(SITE)"}
        - {name: ORDERS_PER_SECOND, value: "20"}
        - {name: DB_HOST, value: db.%[2]s}
        - {name: DB_PASSWORD, value: secret}
`

// newTill starts the ledger, and names the application after the test.
func newTill(t *testing.T) *till {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(hostAddress(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &till{app: &app{name: short(t), vault: common}, address: l.Addr().String(), acks: map[string][]scenario.Ack{}}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

// ServeHTTP takes down what a site's writer reports. It may report the same again.
func (s *till) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	site := strings.Split(r.URL.Path, "/")[1]
	var batch []scenario.Ack
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<20)).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ack := range batch {
		if !slices.Contains(s.acks[site][max(0, len(s.acks[site])-1000):], ack) {
			s.acks[site] = append(s.acks[site], ack)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// open brings it to east, protects it and captures it once.
func (s *till) open(t *testing.T) {
	t.Helper()
	removeNamespace(t, east, s.name)
	apply(t, east, namespaced(s.name)+"---\n"+postgres{namespace: s.name}.yaml()+fmt.Sprintf(tillWriter, s.name, s.name, rig.Images["shop-app"], s.address)+s.more)
	s.sells(t, east)
	s.protect(t)
	s.backup(t)
	removeNamespace(t, west, s.name)
	t.Cleanup(func() { unprotect(west, s.name) })
}

// namespaced is a namespace of the tests.
func namespaced(name string) string {
	return "{apiVersion: v1, kind: Namespace, metadata: {name: " + name + ", labels: {davit-e2e: 'true'}}}\n"
}

// apart has the orders placed by clients at east that are no part of the application, and stay there: what
// runs of it elsewhere takes none.
func (s *till) apart(t *testing.T) {
	t.Helper()
	kubectl(t, east, "-n", s.name, "delete", "deployment", "writer")
	eventually(t, 3*time.Minute, "its own writer has ended", func() (bool, string) { // orders are numbered by one
		got := try(t, east, "-n", s.name, "get", "pods", "-l", "app=writer", "-o", "name")
		return got == "", got
	})
	clients := s.name + "-clients"
	removeNamespace(t, east, clients)
	apply(t, east, namespaced(clients)+"---"+fmt.Sprintf(tillWriter, clients, s.name, rig.Images["shop-app"], s.address))
	s.sells(t, east)
}

// at is what was acknowledged at a site.
func (s *till) at(site string) []scenario.Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acks[site])
}

// sells waits until more orders were acknowledged at a site than had been.
func (s *till) sells(t *testing.T, site string) {
	t.Helper()
	was := len(s.at(site))
	eventually(t, 3*time.Minute, "more orders are acknowledged at "+site, func() (bool, string) {
		n := len(s.at(site))
		return n >= was+10, fmt.Sprintf("%d orders, had %d", n, was)
	})
}

// stood is the longest time in which a site acknowledged no order, since then.
func (s *till) stood(site string, since time.Time) (longest time.Duration) {
	acks := s.at(site)
	slices.SortFunc(acks, func(a, b scenario.Ack) int { return a.At.Compare(b.At) })
	for _, ack := range acks {
		if ack.At.After(since) {
			longest, since = max(longest, ack.At.Sub(since)), ack.At
		}
	}
	return longest
}

// overlap is how long after the first acknowledgement of one site another one still gave some:
// above zero, and two have written.
func overlap(left, came []scenario.Ack) time.Duration {
	last := slices.MaxFunc(left, func(a, b scenario.Ack) int { return a.At.Compare(b.At) })
	first := slices.MinFunc(came, func(a, b scenario.Ack) int { return a.At.Compare(b.At) })
	return last.At.Sub(first.At)
}

// neverTwo: east's last order was acknowledged before west's first.
func (s *till) neverTwo(t *testing.T) {
	t.Helper()
	s.neverBoth(t, east, west)
}

// neverBoth: the last order of the site that was left was acknowledged before the first of the one
// that it came to. The control is an order of the one that would have been acknowledged together
// with the other's first.
func (s *till) neverBoth(t *testing.T, left, came string) {
	t.Helper()
	mine, theirs := s.at(left), s.at(came)
	got := overlap(mine, theirs)
	if got >= 0 {
		t.Errorf("two writers: %s acknowledged orders until %s after the first of %s", left, got, came)
	}
	t.Logf("the first order of %s was acknowledged %s after the last of %d of %s", came, -got, len(mine), left)
	if overlap(append(mine, theirs[0]), theirs) < 0 {
		t.Error("the test does not see it if two write")
	}
}

// bothSell is the control of neverTwo, where nothing fenced east, which is cut off and runs on: once
// the ledger hears of it, it sees that two have written.
func (s *till) bothSell(t *testing.T) {
	t.Helper()
	if err := rig.Bed.Heal(t.Context(), east, "host"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "the ledger sees that two have written", func() (bool, string) {
		got := overlap(s.at(east), s.at(west))
		return got > 0, got.String()
	})
}

// kept: the database at a site is sound, and has each order that was acknowledged anywhere, as it
// was, but for those of other sites since lost; the control is an order that nobody placed. It
// returns what is lost.
func (s *till) kept(t *testing.T, site string, since time.Time) []scenario.Ack {
	t.Helper()
	var acks []scenario.Ack // what the ledger does not know yet, the database may have
	for _, site := range []string{east, west, north} {
		acks = append(acks, s.at(site)...)
	}
	ask := []string{"-n", s.name, "exec", "db-0", "-c", "postgres", "--"}
	var text string
	eventually(t, 3*time.Minute, "db-0 at "+site+" answers", func() (bool, string) {
		text = try(t, site, append(ask, "psql", "-XAtqF", " ", "-c", scenario.OrdersQuery)...)
		return !strings.HasPrefix(text, "error:"), text
	})
	lost, err := scenario.Missing(acks, text)
	if err != nil {
		t.Fatal(err)
	}
	here := s.at(site)
	for _, ack := range lost {
		if ack.At.Before(since) || slices.Contains(here, ack) {
			t.Fatalf("order %d, acknowledged at %s, is not in the database at %s; only those of other sites since %s may be missing", ack.ID, ack.At, site, since)
		}
	}
	forged := scenario.Ack{ID: 1, At: acks[0].At, Checksum: "nobody's"}
	if found, _ := scenario.Missing(append(acks, forged), text); !slices.Contains(found, forged) {
		t.Error("the test does not see it if an order is missing")
	}
	kubectl(t, site, append(ask, "pg_amcheck", "--install-missing", "--heapallindexed", "--parent-check")...)
	t.Logf("%d orders were acknowledged; %s has all but %d, and is sound", len(acks), site, len(lost))
	return lost
}

// cameBack: a run that says that it is rolled back has brought it back to east, and what
// came runs since: no node stopped it once more after it had lifted its fence, which it did.
func (s *till) cameBack(t *testing.T, since time.Time) {
	t.Helper()
	if now := s.status(t, east, "role") + " " + s.replicas(t, east) + " " + s.status(t, east, "rest"); now != "Active 1 " {
		t.Errorf("it is said to be back at east, and is %s", now)
	}
	pod := kubectl(t, east, "-n", s.name, "get", "pod", "db-0", "-o", `jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}`)
	if pod != "true 0" {
		t.Errorf("it is said to be back at east, and PostgreSQL, ready and restarted, is %s", pod)
	}
	lifted := false
	log := kubectl(t, east, "-n", system, "logs", "daemonset/davit-node", "-c", "node", "--since-time="+since.UTC().Format(time.RFC3339))
	for line := range strings.Lines(log) {
		switch {
		case !strings.Contains(line, s.name):
		case strings.Contains(line, "no longer fenced"):
			lifted = true
		case lifted && (strings.Contains(line, "stopped a container") || strings.Contains(line, "cut off a pod")):
			t.Errorf("a node stopped what had come back: %s", line)
		}
	}
	if !lifted {
		t.Error("the node does not say that it lifted its fence: the test sees nothing")
	}
}

// keptAsTold: west has all that was acknowledged before the point that a failover brought there,
// and the run tells no smaller loss than there is.
func (s *till) keptAsTold(t *testing.T, run string) {
	t.Helper()
	var r struct {
		Asked        time.Time
		Applications []struct {
			Instant time.Time
			RPO     time.Duration
		}
	}
	davit(t, west, s.vault, "runs", "report", run, "-o", "json").want(t, 0).read(t, &r)
	if len(r.Applications) != 1 {
		t.Fatalf("%+v", r)
	}
	for _, ack := range s.kept(t, west, r.Applications[0].Instant) {
		if loss := r.Asked.Sub(ack.At); loss > r.Applications[0].RPO {
			t.Errorf("order %d, acknowledged %s before the run, is lost, and the run says %s", ack.ID, loss, r.Applications[0].RPO)
		}
	}
}

// noLater is a time after which nothing may be missing: no order at all is lost.
var noLater = time.Unix(1<<40, 0)
