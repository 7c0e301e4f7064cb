package balancer

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Met is what clients met.
type Met struct {
	Served map[string]int // by site
	// Unheard are errors at a site that was dead or passive before it had failed all of its probes,
	// and Closed those while the load balancer knew of no site.
	Unheard, Closed int
	// Probes are how many in a row each site failed that was taken out, and how many it passed that
	// was taken in, in their order.
	Probes []string
}

func (m Met) String() string {
	return fmt.Sprintf("served %v; %d errors before a site had failed its probes, %d while there was none; %s", m.Served, m.Unheard, m.Closed, strings.Join(m.Probes, ", "))
}

var (
	probed = regexp.MustCompile(`^Health check for server www/(\S+) (failed|succeeded), .* status: \d+/\d+ (UP|DOWN)\.$`)
	turned = regexp.MustCompile(`^Server www/(\S+) is (UP|DOWN)\.`)
)

// server is what is known of one while the log is read. A load balancer writes down how a probe ended when it
// has read the answer, and takes the server in or out after whatever else it had to do in that turn: clients
// whom it answers in between fare as before.
type server struct {
	passes   bool // by its probes
	up       bool // clients are sent to it
	noes     int  // in a row
	yeses    int
	errors   int // of clients at it, since it served one last
	underway bool
}

// judge goes through a load balancer's log. It is written for one client, who asks again when he is answered. He may
// meet errors at a site only in the probes by which that is found out, fall in a row, and at none only
// from then on until another passed rise, and was taken in for it: all of them lie in that many probes, as the load balancer
// itself counts them, or no site was active.
func judge(log []string, fall, rise int, active string) (Met, error) {
	if len(log) == 0 {
		return Met{}, errNothing
	}
	j := judgement{met: Met{Served: map[string]int{}}, fall: fall, rise: rise, servers: map[string]*server{active: {passes: true, up: true}}}
	for _, line := range log {
		if m := probed.FindStringSubmatch(line); m != nil {
			j.probe(m[1], m[2] == "succeeded", m[3] == "UP")
			continue
		}
		if m := turned.FindStringSubmatch(line); m != nil {
			j.turn(m[1], m[2] == "UP")
			continue
		}
		if f := strings.Fields(line); len(f) == 3 && f[0] == "client" {
			j.client(f[1], f[2] == "200")
		}
	}
	for name, s := range j.servers {
		if s.errors > 0 {
			j.fault("a client met an error at %s, which was never taken out for it", name)
		}
	}
	return j.met, errors.Join(j.faults...)
}

type judgement struct {
	met        Met
	fall, rise int
	servers    map[string]*server
	turnedAway bool // one client may still be told that there is no site: he asked before one was taken in
	faults     []error
}

func (j *judgement) fault(format string, args ...any) {
	j.faults = append(j.faults, fmt.Errorf(format, args...))
}

func (j *judgement) server(name string) *server {
	if j.servers[name] == nil {
		j.servers[name] = &server{}
	}
	return j.servers[name]
}

// with are the servers of which something is so.
func (j *judgement) with(so func(*server) bool) (names []string) {
	for name, s := range j.servers {
		if so(s) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (j *judgement) probe(name string, yes, passes bool) {
	s := j.server(name)
	if s.passes != s.up {
		j.fault("%s was probed again before it was taken in or out", name)
	}
	if yes {
		s.yeses, s.noes = s.yeses+1, 0
	} else {
		s.noes, s.yeses = s.noes+1, 0
	}
	switch {
	case s.passes && !passes:
		j.met.Probes = append(j.met.Probes, fmt.Sprintf("%s out after %d probes", name, s.noes))
		if s.noes != j.fall {
			j.fault("%s was taken out after %d probes, not %d", name, s.noes, j.fall)
		}
	case !s.passes && passes:
		j.met.Probes = append(j.met.Probes, fmt.Sprintf("%s in after %d", name, s.yeses))
		if s.yeses != j.rise {
			j.fault("%s was taken in after %d probes, not %d", name, s.yeses, j.rise)
		}
		for _, other := range j.with(func(s *server) bool { return s.passes && s.noes == 0 }) {
			j.fault("two were active: %s was taken in while %s passed its probes", name, other)
		}
		j.turnedAway = len(j.up()) == 0
	}
	s.passes = passes
}

// turn is a server that is taken in or out.
func (j *judgement) turn(name string, up bool) {
	s := j.server(name)
	if s.passes != up {
		j.fault("%s was taken in or out against its probes", name)
	}
	switch {
	case s.up && !up:
		j.met.Unheard += s.errors
		s.errors, s.underway = 0, true
	case !s.up && up:
		s.underway = false
	}
	s.up = up
}

// up are the servers that clients are sent to.
func (j *judgement) up() []string { return j.with(func(s *server) bool { return s.up }) }

func (j *judgement) client(at string, served bool) {
	may := j.turnedAway
	j.turnedAway = false
	if at == "<NOSRV>" {
		j.met.Closed++
		if some := j.with(func(s *server) bool { return s.passes || s.up }); len(some) > 0 && !may {
			j.fault("a client was sent to nobody while there was %v", some)
		}
		return
	}
	s := j.server(at)
	if !s.up {
		if !s.underway {
			j.fault("a client was sent to %s, which had been taken out", at)
		}
		s.underway = false // he had been sent there before
		if !served {
			j.met.Unheard++
			return
		}
	}
	switch {
	case served && s.errors > 0:
		j.fault("a client met an error at %s, which served the next", at)
		s.errors = 0
	case !served:
		s.errors++
		return
	}
	j.met.Served[at]++
}
