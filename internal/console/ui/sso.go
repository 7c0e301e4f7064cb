package ui

import (
	"errors"
	"net/http"

	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/sso"
	"davit.dev/davit/internal/console/store"
)

// stateCookie ties a login by a provider to the browser that began it.
const stateCookie = "__Host-davit-login"

// beginSSO sends a browser to the login provider.
func (s *Server) beginSSO(w http.ResponseWriter, r *http.Request) {
	next := local(r.FormValue("next"))
	err := s.Door.Pace(r)
	to, state := "", ""
	if err == nil {
		to, state, err = s.SSO.Begin(r.Context(), next)
	}
	if err != nil {
		s.failSSO(w, r, next, err)
		return
	}
	s.setState(w, state, 600)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s *Server) setState(w http.ResponseWriter, state string, age int) {
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: state, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: age})
}

// endSSO takes a browser in that the provider sends back.
func (s *Server) endSSO(w http.ResponseWriter, r *http.Request) {
	state := ""
	if c, err := r.Cookie(stateCookie); err == nil {
		state = c.Value
	}
	s.setState(w, "", -1)
	id, next, err := s.SSO.Finish(r.Context(), r.URL.Query(), state)
	token := ""
	if err == nil {
		token, err = s.Door.LoginVouched(r.Context(), r, id, entry.Browser)
	}
	if err != nil {
		s.failSSO(w, r, next, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(id.Life.Seconds())})
	http.Redirect(w, r, local(next), http.StatusSeeOther)
}

// failSSO says on the login page why a login by the provider did not come to be.
func (s *Server) failSSO(w http.ResponseWriter, r *http.Request, next string, err error) {
	code, says := http.StatusInternalServerError, "The console could not do it: its log says why."
	for _, known := range []struct {
		is   error
		code int
	}{
		{sso.ErrRefused, http.StatusUnauthorized},
		{sso.ErrTooMany, http.StatusTooManyRequests},
		{entry.ErrTooMany, http.StatusTooManyRequests},
		{entry.ErrForbidden, http.StatusForbidden},
		{store.ErrRefused, http.StatusForbidden},
	} {
		if errors.Is(err, known.is) {
			code, says = known.code, err.Error()
		}
	}
	if errors.Is(err, sso.ErrSilent) {
		code, says = http.StatusServiceUnavailable, sso.ErrSilent.Error()
	}
	s.Log.Warn("a login by the provider did not come to be", "err", err)
	s.showLogin(w, r, code, loginData{Next: local(next)}, says)
}
