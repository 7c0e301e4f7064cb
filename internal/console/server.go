// Package console is the control room of a fleet, which nothing depends on: one
// process that shows what the vaults of its projects say, and keeps documents,
// people and robots. See docs/console.md.
package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/agents"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/journal"
	"davit.dev/davit/internal/console/lead"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/ui"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/survey"
)

// formerSecret is the name under which a console keeps the former authorities that are trusted, newest first.
const formerSecret = "authorities.former"

// Options say how a console is run.
type Options struct {
	Dir    string
	Listen string
	// Names are those by which the console is called, for its own certificate.
	Names []string
	// Certificate and Key are files of a certificate to use instead.
	Certificate, Key string
	// URL is where people find this console, for who comes to one that is passive.
	URL string
	// Every is how often each vault is read.
	Every time.Duration
	// Backup is how often each database is kept in its vault; 0 is never.
	Backup time.Duration

	// SSO is how people log in by a provider; nil: not at all.
	SSO *sso.Config

	Store fleet.OpenStore
	Cost  account.Cost
	Now   func() time.Time
	Log   *slog.Logger
	// step is how often it looks who is active; 0 is lead.Every.
	step time.Duration
	// lost says why a database that is open is none any more; nil: store.Console.Lost.
	lost func(context.Context, *store.Console) error
	// pause waits before the console begins anew; nil: for as long as it says.
	pause func(ctx context.Context, d time.Duration)
	// Ready is told the address on which the console listens.
	Ready func(address string)
}

// silence is for how long a vault that is read may give no answer at all.
const silence = time.Minute

// remembered bounds what is remembered of the small objects of all vaults, in bytes.
const remembered = 128 << 20

// backupLimit is how long the backup of one database may take, and backupLook
// how often it is looked whether one is due.
const (
	backupLimit = 10 * time.Minute
	backupLook  = time.Minute
)

// reportLimit is how long a report, or a run, may take to be read and checked.
const reportLimit = 20 * time.Second

// beat is how often watchers of documents are written to.
const beat = 15 * time.Second

// Bounds of one request: to arrive, and to be answered. A watch sets its own.
const (
	arrival = time.Minute
	answer  = 2 * time.Minute
)

// tally is how often refused logins that were not noted one by one are told of.
const tally = time.Minute

// grace is how long requests may go on when the console ends.
const grace = 5 * time.Second

// server is what a console is from one change of who is active to the next.
type server struct {
	Options
	console *store.Console
	agents  *agents.Server
	// duty says as what it serves; nil: as one whom nobody follows.
	duty *duty

	// budget is what may be remembered of vaults' small objects.
	budget *survey.Budget

	keeper *backup.Keeper
	sso    *sso.Provider // nil where there is none
	// projects makes, removes and restores them.
	projects *project.Desk

	mu      sync.Mutex
	watches map[string]watched // by project id
	running sync.WaitGroup
	web     http.Handler
	stop    func()
}

// Serve runs a console until the context ends.
func Serve(ctx context.Context, opts Options) error {
	release, err := lock(opts.Dir)
	if err != nil {
		return err
	}
	defer release()
	if opts.pause == nil {
		opts.pause = func(ctx context.Context, d time.Duration) {
			select {
			case <-ctx.Done():
			case <-time.After(d):
			}
		}
	}
	for again := (anew{}); ; {
		begun := time.Now()
		err := serve(ctx, &opts)
		if !errors.Is(err, errLost) || ctx.Err() != nil {
			return err
		}
		if again = again.next(time.Since(begun)); again.pause == 0 {
			opts.Log.Warn("a database was lost while it was served: the console begins anew, and brings it from the vault", "err", err)
			continue
		}
		opts.Log.Error("databases of the console are lost again and again: its disk may be failing; look at it, or stop this console and let another serve from another disk", "dir", opts.Dir, "times", again.times, "begins anew after", again.pause, "err", err)
		if opts.pause(ctx, again.pause); ctx.Err() != nil {
			return nil
		}
	}
}

// anew is how often a console has begun anew, and after what pause it does so next. The
// first time is at once. What is lost again soon is on a disk that nothing helps but a
// person: each time more is waited, and another console serves meanwhile.
type anew struct {
	times int
	pause time.Duration
}

// For how long a console is to have served that its database was not lost again, and the
// pauses.
const (
	anewCalm  = 10 * time.Minute
	anewFirst = time.Second
	anewMost  = time.Minute
)

// next is after it has served for so long.
func (a anew) next(served time.Duration) anew {
	switch {
	case a.times == 0 || served >= anewCalm:
		return anew{times: 1}
	case a.pause == 0:
		return anew{a.times + 1, anewFirst}
	}
	return anew{a.times + 1, min(2*a.pause, anewMost)}
}

// serve runs a console until the context ends, or a database is lost that it has open.
func serve(ctx context.Context, opts *Options) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also where it begins anew
	c, err := open(ctx, *opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	d, err := newDuty(*opts, c)
	if err != nil {
		return err
	}
	config, err := d.tls(ctx)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	opts.Listen = listener.Addr().String() // should it begin anew, it is where it was
	return d.run(ctx, tls.NewListener(listener, config))
}

// watched is a project whose vault is read.
type watched struct {
	*fleet.Watch
	stop func()
}

func newServer(opts Options, c *store.Console) *server {
	return &server{
		Options: opts, console: c, watches: map[string]watched{}, budget: survey.NewBudget(remembered),
		keeper: &backup.Keeper{Console: c, Store: opts.Store, Every: opts.Backup, Limit: backupLimit, Now: opts.Now, Log: opts.Log, Trim: trim},
	}
}

// trim removes what the journal of a database need not hold.
func trim(ctx context.Context, s backup.Shelf, database string) error {
	return journal.Book{Shelf: s, Database: database}.Trim(ctx)
}

// begin has everything of the console run, until end.
func (s *server) begin(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	door := entry.NewDoor(s.console, s.Cost, s.Now, s.Log)
	s.agents = agents.NewServer(ctx, agents.Options{Console: s.console, Authorities: authorities, Speaks: s.speaks, Now: s.Now, Log: s.Log})
	s.running.Go(s.agents.Wait)
	if s.SSO != nil {
		s.sso = sso.New(s.SSO, s.Now, ctx.Done())
		s.running.Go(s.sso.Wait)
	}
	s.web = s.handler(ctx, door)
	s.running.Go(func() { s.follow(ctx) })
	s.running.Go(func() { door.Tell(ctx, tally) })
	if s.Backup > 0 {
		s.running.Go(func() { s.keeper.Run(ctx, min(s.Backup, backupLook)) })
	}
}

// beginPassive has it send everybody elsewhere, until end.
func (s *server) beginPassive(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	s.agents = agents.NewServer(ctx, agents.Options{Console: s.console, Authorities: authorities, Speaks: s.speaks, Now: s.Now, Log: s.Log})
	s.running.Go(s.agents.Wait)
	mux := http.NewServeMux()
	s.plain(mux)
	mux.Handle("GET "+api.StatusPath, api.StatusHandler(s.duty.standing, s.Log))
	mux.HandleFunc(api.Prefix+"/", s.elsewhere)
	mux.HandleFunc("/", s.elsewhere)
	s.web = s.guarded(s.agents.Handler(), mux)
}

// end returns when nothing of the console runs any more.
func (s *server) end() {
	s.stop()
	s.running.Wait()
}

// handler is all that the console answers.
func (s *server) handler(ctx context.Context, door *entry.Door) http.Handler {
	desk := &steer.Desk{Door: door, Open: s.vault, Patience: patience}
	mux, heard := http.NewServeMux(), s.agents.Handler()
	begins := &begin.Desk{Door: door, Fleet: s.known}
	restores := &restoration.Desk{Door: door, Fleet: s.known, Open: s.vault}
	s.projects = &project.Desk{Console: s.console, Store: s.Store, Fleet: s.known, Backups: s.keeper.States, Confirm: s.keeper.Confirm, Leave: s.leave, Bring: s.bring, Book: s.book, Now: s.Now}
	mux.Handle(api.Prefix+"/", (&api.Server{Door: door, Projects: s.projects, Reports: s.report, Steer: desk, Fleet: s.known, Agents: s.agents, Begins: begins, Restores: restores, Backups: s.keeper, Status: s.duty.standing, SSO: s.sso, Log: s.Log, Active: s.active, Beat: beat, Done: ctx.Done()}).Handler())
	mux.Handle("/", (&ui.Server{
		Door: door, Projects: s.projects, Steer: desk, Fleet: s.known, Placements: s.agents.Standings, Round: s.round, Run: s.run, Report: s.report, Begins: begins, Restores: restores, Backups: s.keeper.States, SSO: s.sso, Log: s.Log, Beat: beat, Done: ctx.Done(),
	}).Handler())
	s.plain(mux)
	return s.guarded(heard, mux)
}

// patience is how long whoever steers a run waits for its answer, before he is told
// that there is none yet.
const patience = 4 * time.Second

// vault opens a project's vault, as it is now.
func (s *server) vault(ctx context.Context, p *store.Project) (*vault.Project, error) {
	var b fleet.Binding
	if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
		return nil, err
	}
	in, _, err := b.Project(ctx, s.Store)
	return in, err
}

// plain are the answers that anybody may have.
func (s *server) plain(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { s.say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /healthz/active", func(w http.ResponseWriter, _ *http.Request) {
		code, text := s.duty.health()
		s.say(w, code, text)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		s.say(w, http.StatusOK, metrics(s.keeper.States(), s.Now())+s.duty.metrics(r.Context()))
	})
}

// guarded hands agents' requests on to heard and all others to mux.
func (s *server) guarded(heard, mux http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if agents.Wants(r) { // streams have deadlines of their own
			heard.ServeHTTP(w, r)
			return
		}
		// Who does not read his answer keeps nothing busy for ever.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answer)); err != nil {
			s.Log.Debug("an answer has no deadline", "err", err)
		}
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func (s *server) say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.WriteHeader(code)
	if _, err := w.Write([]byte(text)); err != nil {
		s.Log.Debug("an answer was not taken", "err", err)
	}
}

// known is what is known of a project's fleet.
func (s *server) known(p *store.Project) fleet.Known {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.watches[p.ID]
	if !ok {
		return fleet.Known{Unread: true}.With(s.agents.Known(p))
	}
	return w.Known().With(s.agents.Known(p))
}

// round is closed when a project's vault was read again.
func (s *server) round(p *store.Project) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.watches[p.ID]; ok {
		return w.Round()
	}
	return nil // no watch yet: the page that asks hears so with its next beat
}

// run reads a run from the vault, for whoever wants more of it than what is known.
func (s *server) run(ctx context.Context, p *store.Project, name string) (fleet.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	in, err := s.vault(ctx, p)
	if err != nil {
		return fleet.Run{}, err
	}
	return fleet.Journaled(ctx, in, name)
}

// report reads a run's newest signed report from the vault, and checks it.
func (s *server) report(ctx context.Context, p *store.Project, run string) (*evidence.Document, error) {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	var b fleet.Binding
	if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
		return nil, err
	}
	in, _, err := b.Project(ctx, s.Store)
	if err != nil {
		return nil, err
	}
	d, err := evidence.Latest(ctx, in, run)
	if err != nil {
		return nil, err
	}
	_, err = evidence.Verify(ctx, in, d)
	return d, err
}

// speaks is as what this console speaks to agents.
func (s *server) speaks() uplink.Console {
	st := s.duty.status()
	return uplink.Console{Epoch: st.Epoch, Active: st.Role == lead.Active}
}

// authorities are a project's, the newest first: agents may know a former one.
func authorities(ctx context.Context, p *store.Project) ([]*authority.Authority, error) {
	var newest authority.Authority
	if err := p.Secret(ctx, authority.Secret, &newest); err != nil {
		return nil, err
	}
	var former []*authority.Authority
	if err := p.Secret(ctx, formerSecret, &former); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return append([]*authority.Authority{&newest}, former...), nil
}

// follow begins to watch each project that there is or that is added.
func (s *server) follow(ctx context.Context) {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		all, err := s.console.Projects(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Error("projects cannot be listed", "err", err)
		}
		for _, l := range all {
			s.watch(ctx, l)
		}
		if err := s.projects.Tidy(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("the database of a project that was removed is still there", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// leave has all that serves a project that was removed let go of it.
func (s *server) leave(id string) {
	s.letGo(id)
	s.duty.left(id)
}

// letGo has what reads a project, and hears its agents, let go of it.
func (s *server) letGo(id string) {
	s.mu.Lock()
	if w, ok := s.watches[id]; ok {
		w.stop()
		delete(s.watches, id)
	}
	s.mu.Unlock()
	s.agents.Leave(id)
}

func (s *server) watch(ctx context.Context, l store.Listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.watches[l.ID]; there {
		return
	}
	p, err := s.console.Project(ctx, l.Name)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("a project cannot be opened", "project", l.Name, "err", err)
		}
		return
	}
	log := s.Log.With("project", l.Name)
	ctx, stop := context.WithCancel(ctx)
	w := fleet.NewWatch(ctx, fleet.Options{
		Open: func(ctx context.Context) (*vault.Project, error) {
			var b fleet.Binding
			if err := p.Secret(ctx, fleet.BindingSecret, &b); err != nil {
				return nil, err
			}
			in, _, err := b.Project(ctx, s.Store)
			return in, err
		},
		Memory: p, Budget: s.budget, Every: s.Every, Limit: silence, Now: s.Now, Log: log,
	})
	s.watches[l.ID] = watched{w, stop}
	s.running.Go(func() {
		defer stop()
		w.Run(ctx)
	})
}

// bring brings a project's database from its vault, beside the one that is served until it is
// in its place.
func (s *server) bring(ctx context.Context, l store.Listing) error {
	return s.duty.shelves.fetch(ctx, l, func(id string, put func(path string) error) error {
		s.leave(id)
		// Who looked in between has taken hold of the database that is closed now.
		defer s.letGo(id)
		return s.console.Swap(id, put)
	})
}

// book is the journal of a project.
func (s *server) book(ctx context.Context, p *store.Project) (journal.Book, error) {
	return s.duty.shelves.book(ctx, p, false)
}

// tls is the console's certificate: a given one, read again when it was
// changed, or one of its own authority, made anew before it ends.
func (s *server) tls(ctx context.Context) (*tls.Config, error) {
	get, err := s.certificates(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := get(nil); err != nil {
		return nil, err
	}
	call := func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.duty.now.Load().agents.Config(hello) }
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, GetConfigForClient: call, NextProtos: []string{"h2", "http/1.1"}}, nil
}

type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

func (s *server) certificates(ctx context.Context) (getCertificate, error) {
	if s.Certificate != "" {
		return s.given(), nil
	}
	var by atomic.Pointer[authority.Authority]
	look := func(beginning bool) error {
		trusted, err := s.signers(ctx, beginning)
		if err == nil {
			err = writeCA(s.Dir, trusted)
		}
		if err == nil {
			by.Store(trusted[len(trusted)-1])
		}
		return err
	}
	if err := look(true); err != nil {
		return nil, err
	}
	go func() { // nobody who calls waits for it
		ticker := time.NewTicker(min(lookAtCA, s.Every))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if err := look(false); err != nil && ctx.Err() == nil {
				s.Log.Debug("the console's certificate stays what it is", "err", err)
			}
		}
	}()
	return s.made(by.Load), nil
}

// signers are the authorities that are trusted of the project whose oldest of them signs
// the console's own certificate, for people and machines may know that one alone: CAFile
// vouches for all. That is the first project; at the beginning, while its file is damaged
// and its vault silent, the next. Later nothing is sought elsewhere: people know what is.
func (s *server) signers(ctx context.Context, beginning bool) ([]*authority.Authority, error) {
	all, err := s.console.Projects(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b store.Listing) int { return a.Created.Compare(b.Created) })
	var errs []error
	for _, l := range all {
		trusted, err := s.authority(ctx, l, beginning)
		if err == nil || !beginning {
			return trusted, err
		}
		s.Log.Error("the authority of a project cannot be used for the console's certificate", "project", l.Name, "err", err)
		errs = append(errs, err)
	}
	if len(all) == 0 {
		errs = append(errs, errors.New("there is no project yet: `console init` adds one"))
	}
	return nil, fmt.Errorf("make certificate: %w", errors.Join(errs...))
}

// authority returns a project's that are trusted, the newest first; with bring, also of
// one whose file is lost here.
func (s *server) authority(ctx context.Context, project store.Listing, bring bool) ([]*authority.Authority, error) {
	p, err := s.console.Project(ctx, project.Name)
	if bring && lost(err) && s.duty != nil {
		limited, cancel := context.WithTimeout(ctx, fetchLimit)
		defer cancel()
		p, err = s.duty.shelves.project(limited, project)
	}
	if err != nil {
		return nil, err
	}
	return authorities(ctx, p)
}

// lookAtCA is how often it is looked which authority signs the console's certificate.
const lookAtCA = 10 * time.Second

// made makes certificates, each for two thirds of its life, or until its authority is
// trusted no more.
func (s *server) made(by func() *authority.Authority) getCertificate {
	var mu sync.Mutex
	var now *tls.Certificate
	var of *authority.Authority
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if a := by(); of == nil || !a.Certificate.Equal(of.Certificate) {
			of, now = a, nil
		}
		if now != nil && now.Leaf.NotAfter.Sub(s.Now()) > authority.ServerLife/3 {
			return now, nil
		}
		fresh, err := of.Server(s.Names, s.Now())
		if err != nil {
			return nil, err
		}
		now = fresh
		return now, nil
	}
}

// given reads a certificate from files, again when they have changed. One that
// cannot be read leaves the one before.
func (s *server) given() getCertificate {
	var mu sync.Mutex
	var now *tls.Certificate
	var read time.Time
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		info, err := os.Stat(s.Certificate)
		if err == nil && now != nil && info.ModTime().Equal(read) {
			return now, nil
		}
		if err == nil {
			var fresh tls.Certificate
			if fresh, err = tls.LoadX509KeyPair(s.Certificate, s.Key); err == nil {
				now, read = &fresh, info.ModTime()
				return now, nil
			}
		}
		if now == nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		s.Log.Warn("a new certificate cannot be read: the one before goes on", "err", err)
		return now, nil
	}
}

// CAFile is where a console writes the certificate of its authority.
func CAFile(dir string) string { return filepath.Join(dir, "ca.pem") }

func writeCA(dir string, trusted []*authority.Authority) error {
	text := ""
	for _, a := range trusted {
		text += string(a.PEM())
	}
	if old, err := os.ReadFile(CAFile(dir)); err == nil && string(old) == text {
		return nil
	}
	fresh := CAFile(dir) + ".new" // who reads it has the one before or this, and no half of it
	err := os.WriteFile(fresh, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(fresh, CAFile(dir))
	}
	if err != nil {
		return fmt.Errorf("write certificate of the authority: %w", err)
	}
	return nil
}

// Names are the names of a listening address and the machine, for a
// certificate.
func Names(listen string, given []string) []string {
	names := append([]string{}, given...)
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
		names = append(names, host)
	}
	if len(given) == 0 {
		if host, err := os.Hostname(); err == nil {
			names = append(names, strings.ToLower(host))
		}
	}
	return append(names, "localhost", "127.0.0.1", "::1")
}

// URL is where people find a console: as given, or by its first name and the
// port on which it listens.
func URL(given, listen string, names []string) (string, error) {
	if given != "" {
		u, err := url.Parse(given)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return "", fmt.Errorf("%.200q is no https address", given)
		}
		return given, nil
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("listen on %q: %w", listen, err)
	}
	return "https://" + net.JoinHostPort(Names(listen, names)[0], port), nil
}
