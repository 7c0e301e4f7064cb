// Package ui is the console's pages: rendered here, and whole without scripts, for
// people who look at them in the worst hour. They take a session's cookie and nothing
// else; each form holds a secret of the session.
package ui

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/backup"
	"davit.dev/davit/internal/console/begin"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/reply"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/console/ui/assets"
)

//go:embed templates/*.html
var templates embed.FS

var pages = template.Must(template.New("").Funcs(functions).ParseFS(templates, "templates/*.html"))

// cookie is the name of a session's cookie. Browsers take one of this prefix
// only over TLS, for this host and every path.
const cookie = "__Host-davit"

// maxForm bounds a form, in bytes.
const maxForm = 64 << 10

// Server answers the pages.
type Server struct {
	Door *entry.Door
	// Fleet is what is known of a project's fleet.
	Fleet func(p *store.Project) fleet.Known
	// Placements say how a project's documents stand at its sites.
	Placements func(ctx context.Context, p *store.Project) ([]placement.Standing, error)
	// Round is closed when the vault of a project was read again.
	Round func(p *store.Project) <-chan struct{}
	// Projects makes and removes projects.
	Projects *project.Desk
	// Steer takes what people want of runs.
	Steer *steer.Desk
	// Run reads a run from the vault; nil: what is known is all there is.
	Run func(ctx context.Context, p *store.Project, name string) (fleet.Run, error)
	// Report is a run's signed report, once it was checked.
	Report api.Reports
	// Begins takes what sites are asked to begin.
	Begins *begin.Desk
	// Restores takes what they are asked to restore.
	Restores *restoration.Desk
	// Backups is what is known of the console's own backups.
	Backups func() []backup.State
	// SSO is the login provider; nil where there is none.
	SSO *sso.Provider
	Log *slog.Logger
	// Beat is how often pages that are kept up to date are written to, at the
	// least, and Done is closed when the console ends.
	Beat time.Duration
	Done <-chan struct{}
}

// page is what every template is given.
type page struct {
	Title, Page   string
	User          string
	Administrator bool
	Form          string // the session's secret for forms, masked
	Secret        bool   // it shows a secret that is not masked
	Project       string
	May           map[string]bool
	Refresh       bool
	Live          string          // where the page hears that there is something new
	Beat          time.Duration   // how often it hears there that the console lives
	Spans         map[string]span // which parts of long lists it shows
	Done, Problem string
	Data          any
}

// visit is one request of someone who is in.
type visit struct {
	*Server
	w       http.ResponseWriter
	r       *http.Request
	who     entry.Who
	project *store.Project
	page    page
	home    string // where links to parts of lists lead; empty: where this page is
}

func (v *visit) ctx() context.Context { return v.r.Context() }

// errForm says that a form did not come from a page of this session.
var errForm = errors.New("the form is too old, or did not come from this console: open the page again")

// Handler returns the pages.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{name}", assets.Handler(s.Log))
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	if s.SSO != nil {
		mux.HandleFunc("GET /login/sso", s.beginSSO)
		mux.HandleFunc("GET "+sso.ReturnPath, s.endSSO)
	}
	for pattern, serve := range map[string]func(*visit) error{
		"GET /{$}":               projectsPage,
		"POST /logout":           logout,
		"GET /account":           accountPage,
		"GET /account/codes.png": codeImage,
		"POST /account/want":     wantCodes,
		"POST /account/codes":    startCodes,
		"POST /account/password": changePassword,
		"GET /users":             usersPage,
		"POST /users":            createUser,
		"POST /users/change":     changeUser,
		"GET /audit":             consoleAuditPage,
		"GET /backups":           backupsPage,
		"GET /projects":          everyProject,
		"POST /projects":         makeProject,
		"POST /projects/remove":  removeProject,
		"GET /projects/restore":  backPage,
		"POST /projects/restore": restoreProject,
	} {
		mux.Handle(pattern, s.inside("", serve))
	}
	for pattern, with := range inProject() {
		mux.Handle(pattern, s.inside(with.need, with.serve))
	}
	mux.Handle("/", s.inside("", func(*visit) error { return store.ErrNotFound }))
	guard := http.NewCrossOriginProtection()
	return guard.Handler(secured(mux))
}

// place is a page of a project.
type place struct {
	need  account.Permission
	serve func(*visit) error
}

// inProject are the pages of a project, by pattern.
func inProject() map[string]place {
	return map[string]place{
		"GET /p/{project}":                              {account.Read, fleetPage},
		"GET /p/{project}/applications/{name}":          {account.Read, applicationPage},
		"GET /p/{project}/applications/{name}/restore":  {restoration.Need, restorePage},
		"POST /p/{project}/applications/{name}/restore": {restoration.Need, previewRestore},
		"GET /p/{project}/restores/{id}":                {account.Read, restorationPage},
		"POST /p/{project}/restores/{id}/begin":         {restoration.Need, beginRestore},
		"POST /p/{project}/restores/{id}/cancel":        {restoration.Need, cancelRestore},
		"GET /p/{project}/sites/{name}":                 {account.Read, sitePage},
		"GET /p/{project}/vaults":                       {account.Read, vaultsPage},
		"GET /p/{project}/runs":                         {account.Read, runsPage},
		"GET /p/{project}/runs/{name}":                  {account.Read, runPage},
		"POST /p/{project}/runs/{name}/requests":        {account.Read, askRun},
		"GET /p/{project}/runs/{name}/report/{kind}":    {account.Read, reportFile},
		"GET /p/{project}/plans":                        {account.Read, plansPage},
		"GET /p/{project}/plans/{name}":                 {account.Read, planPage},
		"GET /p/{project}/plans/{name}/begin":           {account.Protect, beginPage},
		"POST /p/{project}/plans/{name}/begin":          {account.Protect, beginRun},
		"GET /p/{project}/requests/{id}":                {account.Read, requestPage},
		"GET /p/{project}/readiness":                    {account.Read, readinessPage},
		"GET /p/{project}/events":                       {account.Read, eventsPage},
		"GET /p/{project}/live":                         {account.Read, livePage},
		"GET /p/{project}/documents":                    {account.Read, documentsPage},
		"GET /p/{project}/audit":                        {account.Audit, auditPage},
		"GET /p/{project}/people":                       {account.Read, peoplePage},
		"POST /p/{project}/members":                     {account.Manage, setMember},
		"POST /p/{project}/members/remove":              {account.Manage, removeMember},
		"POST /p/{project}/quota":                       {account.Read, setQuota},
		"POST /p/{project}/tokens":                      {account.Manage, createToken},
		"POST /p/{project}/tokens/revoke":               {account.Manage, revokeToken},
	}
}

// InProject are the patterns of all pages of a project, with the method before each.
func InProject() []string { return slices.Sorted(maps.Keys(inProject())) }

// secured sets what browsers are told about every page.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// inside serves those who are in, and with a project those who may.
func (s *Server) inside(need account.Permission, serve func(*visit) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{Server: s, w: w, r: r}
		err := v.enter(need)
		if errors.Is(err, entry.ErrStranger) {
			http.Redirect(w, r, "/login"+entrance(r), http.StatusSeeOther)
			return
		}
		within := err == nil
		if within {
			err = serve(v)
		}
		if err != nil {
			if !within || errors.Is(err, entry.ErrForbidden) { // else it is some object that is not there
				s.Door.Turned(r, v.who, err)
			}
			v.fail(err)
		}
	})
}

// entrance says at the login where somebody was who is not in any more, and what became of
// the form that he sent.
func entrance(r *http.Request) string {
	to, was := r.URL.RequestURI(), ""
	if r.Method != http.MethodGet {
		to = formPage(r.URL.Path)
	}
	if _, err := r.Cookie(cookie); err == nil && r.URL.Path != "/logout" {
		was = "&was=" + strings.ToLower(r.Method)
	}
	if was == "" && to == "/" {
		return ""
	}
	return "?next=" + url.QueryEscape(to) + was
}

// formPage is the page of the form that is sent to an address.
func formPage(to string) string {
	parts := strings.Split(strings.TrimPrefix(to, "/"), "/")
	switch {
	case to == "/logout", to == "/":
		return "/"
	case parts[0] != "p" || len(parts) < 3:
		return "/" + parts[0]
	case len(parts) == 3 || parts[2] == "members" || parts[2] == "tokens": // and quota
		return "/p/" + parts[1] + "/people"
	}
	return "/" + strings.Join(parts[:4], "/")
}

func (v *visit) enter(need account.Permission) (err error) {
	c, err := v.r.Cookie(cookie)
	if err != nil {
		return entry.ErrStranger
	}
	if v.who, err = v.Door.Session(v.ctx(), c.Value); err != nil {
		return err
	}
	u := v.who.Session.User
	v.page = page{User: u.Name, Administrator: u.Administrator, May: map[string]bool{}, Beat: v.Beat}
	if v.page.Form, err = reply.Mask(v.who.Session.Form); err != nil {
		return err
	}
	if v.r.Method == http.MethodPost && !account.SameHash([]byte(reply.Unmask(v.r.PostFormValue("form"))), []byte(v.who.Session.Form)) {
		return errForm
	}
	name := v.r.PathValue("project")
	if name == "" {
		return nil
	}
	if v.project, err = v.Door.Project(v.ctx(), v.who, name, need); err != nil {
		return err
	}
	v.page.Project = name
	role, err := v.Door.Role(v.ctx(), v.who, v.project)
	for _, p := range role.Permissions() {
		v.page.May[string(p)] = true
	}
	return err
}

// show renders a page.
func (v *visit) show(code int, name, title string, data any) error {
	p := v.page
	p.Page, p.Data = name, data
	if p.Title == "" {
		p.Title = title
	}
	return v.render(v.w, v.r, code, name, p)
}

func (s *Server) render(w http.ResponseWriter, r *http.Request, code int, name string, p page) error {
	var out bytes.Buffer
	if err := pages.ExecuteTemplate(&out, name, p); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	send := func() error { return reply.Write(w, r, code, out.Bytes()) }
	if p.Secret {
		send = func() error { return reply.Plain(w, code, out.Bytes()) }
	}
	if err := send(); err != nil {
		s.Log.Debug("a page was not taken", "err", err)
	}
	return nil
}

// verdicts are the codes of errors; the first that fits counts. Their text is
// for whoever asked.
var verdicts = []struct {
	is   error
	code int
}{
	{errForm, http.StatusForbidden},
	{entry.ErrForbidden, http.StatusForbidden},
	{entry.ErrWrong, http.StatusUnprocessableEntity},
	{steer.ErrSilent, http.StatusServiceUnavailable},
	{entry.ErrTooMany, http.StatusTooManyRequests},
	{account.ErrPassword, http.StatusUnprocessableEntity},
	{store.ErrRefused, http.StatusUnprocessableEntity},
	{store.ErrExists, http.StatusConflict},
	{store.ErrConflict, http.StatusConflict},
	{store.ErrNotFound, http.StatusNotFound},
	{store.ErrUnconfirmed, http.StatusGatewayTimeout},
	{store.ErrPassive, http.StatusServiceUnavailable},
}

func (v *visit) fail(err error) {
	code, says := http.StatusInternalServerError, "The console could not do it: its log says why."
	for _, known := range verdicts {
		if errors.Is(err, known.is) {
			code, says = known.code, strings.ReplaceAll(err.Error(), "\n", "; ")
			break
		}
	}
	if code == http.StatusNotFound && v.r.Method == http.MethodGet {
		says = "There is nothing here, or nothing that you may see."
	}
	if code == http.StatusInternalServerError {
		v.Log.Error("request failed", "method", v.r.Method, "path", v.r.URL.Path, "err", err)
	}
	v.page.Problem = says // in the project, if he may be there: that is where he goes on
	if err := v.show(code, "problem", "Not done", nil); err != nil {
		v.Log.Error("page failed", "err", err)
		http.Error(v.w, says, code)
	}
}

// then goes on to another page of the console after a form was taken.
func (v *visit) then(path string) error {
	http.Redirect(v.w, v.r, path, http.StatusSeeOther)
	return nil
}

type loginData struct {
	Name, Next string
	SSO        bool
}

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) {
	says := map[string]string{
		"get":  "You are not logged in any more: sessions end after 8 hours without a request. Log in, and you are where you were.",
		"post": "NOTHING WAS DONE: you were not logged in any more when the form was sent. Log in, and ask for it again.",
	}[r.FormValue("was")]
	s.showLogin(w, r, http.StatusOK, loginData{Next: local(r.FormValue("next"))}, says)
}

func (s *Server) showLogin(w http.ResponseWriter, r *http.Request, code int, data loginData, problem string) {
	data.SSO = s.SSO != nil
	if err := s.render(w, r, code, "login", page{Title: "Log in", Problem: problem, Data: data}); err != nil {
		s.Log.Error("page failed", "err", err)
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
	}
}

// local is a path of this console, or "/": nobody is sent elsewhere by a link.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	data := loginData{Name: strings.TrimSpace(r.PostFormValue("name")), Next: local(r.PostFormValue("next"))}
	token, err := s.Door.Login(r.Context(), r, data.Name, r.PostFormValue("password"), r.PostFormValue("code"), entry.Browser)
	switch {
	case errors.Is(err, entry.ErrWrong):
		s.showLogin(w, r, http.StatusUnauthorized, data, "Name, password or one-time code is wrong.")
	case errors.Is(err, entry.ErrTooMany):
		s.showLogin(w, r, http.StatusTooManyRequests, data, "Too many tries: wait a minute.")
	case err != nil:
		s.Log.Error("login failed", "err", err)
		s.showLogin(w, r, http.StatusInternalServerError, data, "The console could not do it: its log says why.")
	default:
		http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(store.SessionLife / time.Second)})
		http.Redirect(w, r, data.Next, http.StatusSeeOther)
	}
}

func logout(v *visit) error {
	if err := v.Door.Console.EndSession(v.ctx(), v.Door.Act(v.who, v.r), *v.who.Session); err != nil {
		return err
	}
	http.SetCookie(v.w, &http.Cookie{Name: cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1})
	return v.then("/login")
}
