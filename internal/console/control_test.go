package console

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/audit"
)

// asked asks the API, and fails unless it answers with the code.
func asked[T any](w *world, token, method, path, body string, want int) (out T) {
	w.t.Helper()
	code, text := w.call(token, method, path, body)
	if code != want {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, code, text, want)
	}
	if code < http.StatusMultipleChoices {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			w.t.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
	return out
}

// Users, logs, backups and who is active, by the API. Each is refused to whoever may
// not.
func TestControl(t *testing.T) {
	w := newWorld(t)
	anna, vera, bob := w.login("anna"), w.login("vera"), w.login("bob")
	robot := w.robot(anna, "acme", `"read","protect","recover","audit"`)
	w.users(anna, vera, robot)
	w.logsOver(anna, vera, bob)
	st := asked[api.Status](w, "", "GET", "/status", "", 200)
	if st.Role != "active" || st.Epoch < 1 || st.Why != "" || st.Version == "" || !strings.HasPrefix(st.Active, "https://") {
		t.Errorf("%+v", st)
	}
	asked[any](w, vera, "POST", "/backups", "", 403)
	asked[any](w, robot, "POST", "/backups", "", 401)
	if code, text := w.call(anna, "POST", "/backups", ""); code != 422 || !strings.Contains(text, "--backup-every 0") {
		t.Errorf("%d %s", code, text)
	}
}

func (w *world) users(anna, vera, robot string) {
	w.t.Helper()
	const next = "another horse battery"
	for _, c := range []struct {
		token, method, path, body string
		want                      int
	}{
		{vera, "GET", "/users", "", 403},
		{vera, "POST", "/users", `{"name":"carl","password":"` + next + `"}`, 403},
		{vera, "PATCH", "/users/anna", `{"disabled":true}`, 403},
		{robot, "GET", "/users", "", 401},
		{robot, "PUT", "/account/password", `{"old":"x","new":"` + next + `"}`, 401},
		{anna, "POST", "/users", `{"name":"carl","password":"short"}`, 422},
		{anna, "POST", "/users", `{"name":"carl","password":"` + next + `","passwort":"x"}`, 400},
		{anna, "POST", "/users", `{"name":"Carl!","password":"` + next + `"}`, 422},
		{anna, "POST", "/users", `{"name":"carl","password":"` + next + `"}`, 201},
		{anna, "POST", "/users", `{"name":"carl","password":"` + next + `"}`, 409},
		{anna, "PATCH", "/users/nobody", `{"disabled":true}`, 404},
		{anna, "PATCH", "/users/anna", `{"disabled":true}`, 422}, // the last administrator
		{anna, "PATCH", "/users/carl", `{"codes":true}`, 422},
		{anna, "PATCH", "/users/carl", `{"codes":false}`, 401}, // a stolen session does not know her password
		{anna, "PATCH", "/users/carl", `{"codes":false,"password":"` + next + `"}`, 401},
		{anna, "PATCH", "/users/carl", `{"codes":false,"disabled":true,"password":"` + password + `"}`, 422}, // neither is done
		{anna, "PATCH", "/users/carl", `{"codes":false,"password":"` + password + `"}`, 200},
		{vera, "PUT", "/account/password", `{"old":"not hers","new":"` + next + `"}`, 401},
		{vera, "PUT", "/account/password", `{"old":"` + password + `","new":"short"}`, 422},
	} {
		if code, text := w.call(c.token, c.method, c.path, c.body); code != c.want || strings.Contains(text, next) {
			w.t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, code, text, c.want)
		}
	}
	all := asked[api.Users](w, anna, "GET", "/users", "", 200)
	if len(all.Items) != 4 || all.Items[0].Name != "anna" || !all.Items[0].Administrator || all.Items[2].Name != "carl" || all.Items[2].Disabled {
		w.t.Errorf("%+v", all)
	}
	if u := asked[api.User](w, anna, "PATCH", "/users/carl", `{"disabled":true}`, 200); !u.Disabled {
		w.t.Errorf("%+v", u)
	}
	asked[any](w, "", "POST", "/login", `{"name":"carl","password":"`+next+`"}`, 401)
	asked[api.User](w, anna, "PATCH", "/users/carl", `{"disabled":false}`, 200)
	carl := asked[api.LoggedIn](w, "", "POST", "/login", `{"name":"carl","password":"`+next+`"}`, 201).Token
	asked[any](w, carl, "PUT", "/account/password", `{"old":"`+next+`","new":"`+next+` too"}`, 200)
	asked[any](w, carl, "GET", "/whoami", "", 401) // his sessions ended
	asked[any](w, "", "POST", "/login", `{"name":"carl","password":"`+next+` too"}`, 201)
	if strings.Contains(w.logs.String(), next) {
		w.t.Error("a password is in the log")
	}
}

// logsOver reads the audit logs in parts, and by filters.
func (w *world) logsOver(anna, vera, bob string) {
	w.t.Helper()
	const log = "/projects/acme/audit"
	asked[any](w, vera, "GET", "/audit", "", 403)
	asked[any](w, bob, "GET", "/audit", "", 403)
	asked[any](w, bob, "GET", log+"?by=anna&after=0", "", 404)
	for _, query := range []string{"?since=noon", "?limit=x", "?before=-1", "?after=x", "?before=2&after=1"} {
		asked[any](w, anna, "GET", log+query, "", 400)
	}
	asked[any](w, anna, "PUT", "/projects/acme/members/vera", `{"role":"operator"}`, 200)
	all := asked[api.Audit](w, anna, "GET", log, "", 200).Items
	if len(all) < 5 {
		w.t.Fatalf("%+v", all)
	}
	var tail audit.Tail
	for forward, next := []audit.Record(nil), int64(0); ; {
		part := asked[api.Audit](w, anna, "GET", log+"?limit=2&after="+jsonOf(w.t, next), "", 200)
		for _, r := range part.Items {
			var err error
			if tail, err = tail.Follow(r); err != nil {
				w.t.Fatal(err)
			}
		}
		if forward = append(forward, part.Items...); len(part.Items) == 0 {
			if len(forward) != len(all) || part.Next != next || forward[0] != all[len(all)-1] {
				w.t.Fatalf("%d of %d records, next %d", len(forward), len(all), part.Next)
			}
			break
		}
		next = part.Next
	}
	for seen, next := 0, int64(0); ; {
		part := asked[api.Audit](w, anna, "GET", log+"?limit=2&before="+jsonOf(w.t, next), "", 200)
		if seen += len(part.Items); part.Next == 0 {
			if seen != len(all) {
				w.t.Fatalf("%d of %d records", seen, len(all))
			}
			break
		}
		next = part.Next
	}
	is := func(path string, want int, check func(audit.Record) bool) {
		w.t.Helper()
		found := asked[api.Audit](w, anna, "GET", path, "", 200).Items
		if len(found) < want || want == 0 && len(found) > 0 {
			w.t.Errorf("%s finds %d, want %d", path, len(found), want)
		}
		for _, r := range found {
			if !check(r) {
				w.t.Errorf("%s finds %+v", path, r)
			}
		}
	}
	is(log+"?by=anna&action=member.*&object=vera", 1, func(r audit.Record) bool { return r.By == "user/anna" && r.Detail == "operator" })
	is(log+"?by=machine/*", 2, func(r audit.Record) bool { return r.By == "machine/root" })
	is(log+"?since="+w.now.Add(time.Hour).UTC().Format(time.RFC3339), 0, nil)
	is("/audit?action=login&refused=true", 1, func(r audit.Record) bool { return r.Refused != "" && r.Object == "carl" })
	w.turned(anna, vera, bob, is)
	is("/audit?action=user.*&object=carl", 4, func(r audit.Record) bool { return r.Object == "carl" })
}

// turned looks for what people asked for and might not: in the log of the project that they
// may know of, else in the console's. Whoever goes on asking fills neither.
func (w *world) turned(anna, vera, bob string, is func(path string, want int, check func(audit.Record) bool)) {
	w.t.Helper()
	const log = "/projects/acme/audit"
	asked[any](w, vera, "DELETE", "/projects/acme/members/anna", "", 403) // an operator
	asked[any](w, bob, "DELETE", "/projects/acme/members/anna?guess=1", "", 404)
	of := func(by, object string) func(audit.Record) bool {
		return func(r audit.Record) bool {
			return r.By == "user/"+by && r.Refused != "" && r.Object == object && r.From != ""
		}
	}
	is(log+"?action=request&by=vera", 1, of("vera", "DELETE /api/v1/projects/acme/members/anna"))
	is(log+"?action=request&by=bob", 0, nil)
	is("/audit?action=request&by=bob&object=DELETE*", 1, of("bob", "DELETE /api/v1/projects/acme/members/anna"))
	is("/audit?action=request&by=vera&object=POST*", 1, of("vera", "POST /api/v1/users"))
	for range 50 {
		asked[any](w, vera, "DELETE", "/projects/acme/members/anna", "", 403)
	}
	if n := len(asked[api.Audit](w, anna, "GET", log+"?action=request&by=vera", "", 200).Items); n > 10 {
		w.t.Errorf("of 51 refusals %d are noted", n)
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Backups are taken when an administrator wants them, and each comes back.
func TestBackupsWhenWanted(t *testing.T) {
	w := newWorld(t)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.backup = 24 * time.Hour
	w.serve()
	anna := w.login("anna")
	first := asked[api.Backups](w, anna, "POST", "/backups", "", 200)
	next := asked[api.Backups](w, anna, "POST", "/backups", "", 200)
	if len(first.Items) != 3 || len(next.Items) != 3 || first.Pending || next.Pending {
		t.Fatalf("%+v, then %+v", first, next)
	}
	for i, b := range next.Items {
		if b.Fault != "" || b.CheckFault != "" || b.Number <= first.Items[i].Number || b.CheckedNumber != b.Number || b.Records == 0 {
			t.Errorf("%+v after %+v", b, first.Items[i])
		}
	}
	if found := asked[api.Audit](w, anna, "GET", "/audit?action=backup.take", "", 200).Items; len(found) != 2 {
		t.Errorf("%+v", found)
	}
}
