// Package balancer runs a real HAProxy before sites, and judges what clients met by what that
// itself has written down, in its order: no clock is asked, so that a busy machine changes no verdict.
package balancer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const program = "/usr/sbin/haproxy"

// Site is one that clients are sent to.
type Site struct {
	Name    string
	Clients string // host:port that serves them
	Asked   string // host:port that says whether it is active
}

// Options are what HAProxy is told.
type Options struct {
	Listen   string        // host:port for clients
	Question string        // the path that sites are asked for
	Interval time.Duration // between two probes of a site
	Fall     int           // that many noes in a row take a site out
	Rise     int           // that many yeses in a row take it in
	Sites    []Site
}

// config has one thread write one line after the other. Whoever is sent to a site that has just come
// up may have to knock twice: its endpoints are ready before every packet finds them.
const config = `
global
  nbthread 1
  stats timeout 10s
  log stdout format raw local0
defaults
  mode http
  log global
  option log-health-checks
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  timeout check 20s
  retries 0
listen www
  bind %s
  log-format "client %%s %%ST"
  option httpchk GET %s
  http-check expect status 200
  http-response set-header X-Site %%s
`

// Balancer is a HAProxy that runs.
type Balancer struct {
	options Options
	cmd     *exec.Cmd
	log     lines
	said    bytes.Buffer // the rest; to be read once it has ended
}

// Start starts one; its configuration is kept in dir.
func Start(dir string, o Options) (*Balancer, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("find HAProxy: %w; run hack/prepare", err)
	}
	text := fmt.Sprintf(config, o.Listen, o.Question)
	for _, s := range o.Sites {
		host, port, ok := strings.Cut(s.Asked, ":")
		if !ok {
			return nil, fmt.Errorf("address of %s: %q has no port", s.Name, s.Asked)
		}
		text += fmt.Sprintf("  server %s %s check addr %s port %s inter %dms fall %d rise %d\n", s.Name, s.Clients, host, port, o.Interval.Milliseconds(), o.Fall, o.Rise)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	b := &Balancer{options: o, cmd: exec.Command(program, "-db", "-f", file)}
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.said
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start HAProxy: %w", err)
	}
	return b, nil
}

// Stop ends it, and returns what it said besides its log.
func (b *Balancer) Stop() string {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	return b.said.String()
}

// Mark is where its log is now: for Judge.
func (b *Balancer) Mark() int { return b.log.len() }

// Judge goes through the log from a mark on, at which one site was active.
func (b *Balancer) Judge(mark int, active string) (Met, error) {
	return judge(b.log.from(mark), b.options.Fall, b.options.Rise, active)
}

// Log is the log from a mark on.
func (b *Balancer) Log(mark int) string { return strings.Join(b.log.from(mark), "\n") }

// lines keeps whole lines of what is written to it.
type lines struct {
	mu   sync.Mutex
	all  []string
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.all, l.rest = append(l.all, string(line)), rest
	}
}

func (l *lines) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *lines) from(mark int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.all[mark:]...)
}

var errNothing = errors.New("the load balancer has written nothing down")
