// Package api is the console's HTTP API: the documents of a project, what is
// known of its fleet, its people and robots. One table has all routes: the
// server and the OpenAPI description are made of it.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/document"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/project"
	"davit.dev/davit/internal/console/reply"
	"davit.dev/davit/internal/console/restoration"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/steer"
	"davit.dev/davit/internal/console/store"
)

// Prefix is where the API is.
const Prefix = "/api/v1"

// maxBody bounds a request's body, in bytes.
const maxBody = document.MaxSize + 1024

// Server answers the API.
type Server struct {
	Door *entry.Door
	// Fleet is what is known of a project's fleet.
	Fleet func(p *store.Project) fleet.Known
	// Agents are those of all projects.
	Agents Agents
	// Begins takes what sites are asked to begin.
	Begins Begins
	// Restores takes what they are asked to restore.
	Restores Restores
	// Projects makes and removes projects.
	Projects *project.Desk
	// Steer takes what people want of runs.
	Steer *steer.Desk
	// Reports are those of runs.
	Reports Reports
	// Backups keeps the console's own backups.
	Backups Keeper
	// Status is what this process of the console is.
	Status func(context.Context) Status
	// SSO is the login provider; nil where there is none.
	SSO *sso.Provider
	Log *slog.Logger
	// Active is the address of the active console, if that is another and known; nil:
	// there is no other.
	Active func() string
	// Beat is how often a watch is written to when nothing happens, and how
	// often it is asked whether the watcher may still watch.
	Beat time.Duration
	// Done ends all watches.
	Done <-chan struct{}
}

// call is one request that was let in.
type call struct {
	*Server
	w       http.ResponseWriter
	r       *http.Request
	who     entry.Who
	project *store.Project // of routes with one
	token   string
}

func (c *call) ctx() context.Context { return c.r.Context() }

// query is a parameter of the address. The body is never one: a client that sends a
// document as a form by mistake (curl does) has it read as the document that it is.
func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

// route is one thing that can be asked.
type route struct {
	method, path string
	summary      string
	// need is what it takes in the project of the path. A route without a
	// project takes a session; an open one nothing.
	need  account.Permission
	open  bool
	query []parameter
	in    any // an example of the body; nil: none
	out   any // an example of the answer
	serve func(c *call) (any, error)
}

type parameter struct{ name, says string }

// status is the answer when something is wrong.
type status struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Active is the address of the active console, where another is that.
	Active string `json:"active,omitempty"`
	// KeyUnused says that nothing was made, nor will be, with the recovery key that was named
	// for a project.
	KeyUnused bool `json:"keyUnused,omitempty"`
}

// Passive is what a console answers that is not the active one. It names that,
// if it is known, and clients go on there.
func Passive(why, active string) any {
	return status{Code: http.StatusServiceUnavailable, Reason: "NotActive", Message: why, Active: active}
}

// created is an answer with the code 201.
type created struct{ any }

// errBad says that the request makes no sense.
var errBad = errors.New("request not valid")

// Handler returns the API, for everything below Prefix.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes() {
		mux.Handle(rt.method+" "+Prefix+rt.path, s.handle(rt))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, store.ErrNotFound)
	})
	return mux
}

func (s *Server) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		c := &call{Server: s, w: w, r: r}
		out, err := c.enter(rt)
		within := err == nil
		if within {
			out, err = rt.serve(c)
		}
		if err != nil {
			if !within || errors.Is(err, entry.ErrForbidden) { // else it is some object that is not there
				s.Door.Turned(r, c.who, err)
			}
			s.fail(w, r, err)
			return
		}
		code := http.StatusOK
		if made, ok := out.(created); ok {
			out, code = made.any, http.StatusCreated
		}
		if out != nil { // else it was answered already
			s.answer(w, r, code, out)
		}
	})
}

// enter lets the caller in, or not. It returns no answer.
func (c *call) enter(rt route) (any, error) {
	if rt.open {
		return nil, nil //nolint:nilnil // there is nothing to say
	}
	return nil, c.authorize(rt.need)
}

// authorize finds out who asks, and whether he may.
func (c *call) authorize(need account.Permission) (err error) {
	token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return entry.ErrStranger
	}
	c.token = token
	name := c.r.PathValue("project")
	if account.IsSession(token) {
		if c.who, err = c.Door.Session(c.ctx(), token); err != nil || name == "" {
			return err
		}
		c.project, err = c.Door.Project(c.ctx(), c.who, name, need)
		return err
	}
	if name == "" {
		return strange(token, entry.ErrStranger)
	}
	p, err := c.Door.RobotProject(c.ctx(), name)
	if err != nil { // strangers are not told which projects there are
		return strange(token, err)
	}
	if c.who, err = c.Door.Robot(c.ctx(), p, token); err != nil {
		return strange(token, err)
	}
	c.project = p
	return c.Door.May(c.ctx(), c.who, p, need)
}

// strange says more to a robot: it cannot log in.
func strange(token string, err error) error {
	if _, robot := account.RobotID(token); robot && errors.Is(err, entry.ErrStranger) {
		return fmt.Errorf("%w: a robot's token counts in its one project, until it ends or is revoked; what is above projects is for people", err)
	}
	return err
}

// decode reads a JSON body, and nothing but what it should hold.
func (c *call) decode(into any) error {
	d := json.NewDecoder(c.r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.Join(errBad, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errBad
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := reply.Write(w, r, code, append(data, '\n')); err != nil {
		s.Log.Debug("an answer was not taken", "err", err)
	}
}

// verdicts are the codes of errors; the first that fits counts.
var verdicts = []struct {
	is     error
	code   int
	reason string
}{
	{entry.ErrWrong, http.StatusUnauthorized, "Unauthorized"},
	{entry.ErrStranger, http.StatusUnauthorized, "Unauthorized"},
	{sso.ErrRefused, http.StatusUnauthorized, "Unauthorized"},
	{sso.ErrNoDevices, http.StatusUnprocessableEntity, "Invalid"},
	{sso.ErrTooMany, http.StatusTooManyRequests, "TooManyRequests"},
	{sso.ErrSilent, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{steer.ErrSilent, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{project.ErrSilent, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{restoration.ErrSilent, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{entry.ErrTooMany, http.StatusTooManyRequests, "TooManyRequests"},
	{entry.ErrStreams, http.StatusTooManyRequests, "TooManyStreams"},
	{entry.ErrForbidden, http.StatusForbidden, "Forbidden"},
	{document.ErrInvalid, http.StatusUnprocessableEntity, "Invalid"},
	{account.ErrPassword, http.StatusUnprocessableEntity, "Invalid"},
	{store.ErrRefused, http.StatusUnprocessableEntity, "Invalid"},
	{errBad, http.StatusBadRequest, "BadRequest"},
	{store.ErrNotFound, http.StatusNotFound, "NotFound"},
	{store.ErrConflict, http.StatusConflict, "Conflict"},
	{store.ErrExists, http.StatusConflict, "AlreadyExists"},
	{store.ErrGone, http.StatusGone, "Expired"},
	{store.ErrUnconfirmed, http.StatusGatewayTimeout, "Unconfirmed"},
	{store.ErrPassive, http.StatusServiceUnavailable, "NotActive"},
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var tooBig *http.MaxBytesError
	st := status{Code: http.StatusInternalServerError, Reason: "InternalError", Message: "the console could not do it: its log says why"}
	if errors.As(err, &tooBig) {
		st = status{Code: http.StatusRequestEntityTooLarge, Reason: "RequestEntityTooLarge", Message: fmt.Sprintf("what was sent is too large: %d KiB are the most", tooBig.Limit>>10)}
	} else {
		for _, v := range verdicts {
			if errors.Is(err, v.is) {
				st = status{Code: v.code, Reason: v.reason, Message: strings.ReplaceAll(err.Error(), "\n", "; ")}
				break
			}
		}
	}
	var unused *project.UnusedError
	st.KeyUnused = errors.As(err, &unused)
	if st.Code == http.StatusInternalServerError {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if errors.Is(err, sso.ErrSilent) { // its text is for whoever keeps the console
		s.Log.Error("the login provider does not answer as it should", "err", err)
		st.Message = sso.ErrSilent.Error()
	}
	if st.Reason == "NotActive" && s.Active != nil { // nothing was changed here: it may be asked again there
		st.Active = s.Active()
	}
	if st.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="davit"`)
	}
	s.answer(w, r, st.Code, st)
}
