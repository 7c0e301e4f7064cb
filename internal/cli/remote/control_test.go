package remote_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // to change a record behind the console's back

	"davit.dev/davit/internal/cli"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/control"
	"davit.dev/davit/internal/console/consoletest"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/settlement/settlementtest"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/backend"
)

// fill puts into the vault what one would find on an ordinary day.
func (r *rig) fill() {
	r.t.Helper()
	ctx := r.t.Context()
	key, err := access.ReadIdentity(r.path("key"))
	if err != nil {
		r.t.Fatal(err)
	}
	store, err := backend.Open(ctx, backend.Config{URL: "file://" + r.path("vault")})
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := vault.OpenProject(ctx, store, "default", key)
	if err == nil {
		err = consoletest.Fill(ctx, p, time.Now())
	}
	if err == nil {
		err = consoletest.Prepare(ctx, p, time.Now())
	}
	if err == nil {
		_, err = evidence.Publish(ctx, p, "drill-shop-2")
	}
	if err == nil {
		err = journal.Create(p, "left-1", "agent west").Append(ctx, settlementtest.Left("left-1", "agent west", time.Now()))
	}
	if err == nil {
		_, _, err = settlement.Write(ctx, p, "left-1", "cli", settlement.Word{By: "ann", Reason: "sent another", Step: "mail"}, time.Now)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// control is who may what, who did what, and the console itself.
func (r *rig) control() {
	r.t.Helper()
	r.staff()
	r.tokens()
	r.log()
	r.followLog()
	r.want(4, "", "placements")("shop", "nowhere", "davit.dev/sites")
	if out := r.want(0, "", "placements", "--site", "east")("No document is for site east"); strings.Contains(out, "shop") {
		r.t.Fatal(out)
	}
	r.fleet()
	r.want(0, "", "--console", r.url, "runs", "report", "drill-shop-2", "-o", "html")("<html")
	r.want(0, "", "--console", r.url, "runs", "report", "drill-shop-2")("drill-shop-2", "Signed with")
	r.want(2, "", "--console", r.url, "runs", "report", "drill-shop-2", "-o", "pdf")("is not one of")
	r.want(3, "", "--console", r.url, "runs", "report", "nothing")("has no report of run nothing")
	r.settles()
	r.projects()
	r.want(0, "", "console", "status")("active", "name them")
	r.want(4, "", "console", "status", "https://127.0.0.1:1")("active", "not known")
	r.want(2, "", "console", "status", "127.0.0.1")("write https://HOST:PORT")
	r.want(0, "", "console", "backups")("--backup-every 0")
	r.want(3, "", "console", "backups", "take")("--backup-every 0")
}

// settles is of what a run that is over left to people: what somebody has settled is answered as before, though
// no agent is there.
func (r *rig) settles() {
	r.t.Helper()
	runs := func(code int, args ...string) func(words ...string) string {
		r.t.Helper()
		return r.want(code, "", append([]string{"--console", r.url, "runs"}, args...)...)
	}
	runs(0, "show", "left-1")("Left to people", "ann, ", ": sent another", "nobody yet", "settle warm-up: at site west")
	runs(2, "settle", "left-1")("give --reason")
	runs(3, "settle", "left-1", "claim/shop", "--reason", "x")("only warm-up, mail did")
	runs(3, "settle", "drill-shop-2", "--reason", "x")("it is not over")
	runs(0, "settle", "left-1", "mail", "--reason", "no, I did")(": sent another")
	runs(3, "rollback", "left-1")("the run is over")
}

// projects are made, listed and removed.
func (r *rig) projects() {
	r.t.Helper()
	file := r.path("shop-key")
	r.want(0, "", "projects")("DATABASE", "default  served")
	r.want(2, "", "projects", "create", "shop")("give --recovery-key-file or --recovery-recipient")
	r.want(2, "", "projects", "create", "a/b", "--recovery-key-file", file)("a/b")
	r.want(2, "", "projects", "create", "shop", "--recovery-recipient", "age1x")("age1x")
	r.want(3, "", "projects", "create", "default", "--recovery-key-file", file)("exists already")
	if _, err := os.Lstat(file); !os.IsNotExist(err) {
		r.t.Fatalf("the key of a project that was refused is still there: %v", err)
	}
	r.want(0, "", "projects", "create", "shop", "--recovery-key-file", file)("project/shop created", "Its admin is anna", "Keep "+file)
	first, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	r.want(0, "", "projects", "create", "shop", "--recovery-key-file", file)("project/shop created", "Its admin is anna") // as after an answer that was lost
	r.want(3, "", "projects", "create", "default", "--recovery-key-file", file)("exists already")
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		r.t.Fatalf("the recovery key is another one: %v", err)
	}
	r.unanswered()
	r.want(0, "", "whoami")("shop")
	r.want(3, "other\n", "projects", "delete", "shop")("Type the project's name")
	r.want(3, "", "projects", "delete", "default", "--yes")("it stays as long as the console")
	r.want(0, "shop\n", "projects", "delete", "shop")("project/shop removed from the console", "keeps all that is there")
	r.want(0, "", "projects", "delete", "shop", "--yes")("project/shop was removed from the console before", "keeps all that is there")
	r.want(3, "", "projects", "delete", "none", "--yes")("not found", "lists them")
	r.want(0, "", "projects")("shop     removed")
	r.want(2, "", "projects", "restore", "shop", "--dry-run")("name a time with --at")
	r.want(3, "other\n", "projects", "restore", "shop")("Type the project's name")
	r.want(3, "", "projects", "restore", "shop", "--at", "1h", "--yes")("it was removed")
	r.want(3, "", "projects", "restore", "none", "--yes")("not found", "lists them")
	r.want(0, "shop\n", "projects", "restore", "shop")("project/shop is the console's again")
	r.want(0, "", "projects")("shop     served")
	r.want(3, "", "projects", "restore", "shop", "--at", "1h", "--yes")("it was made after that time")
	r.want(0, "", "projects", "restore", "shop", "--at", "0s", "--dry-run")("would go back", "0 changes", "Nothing was changed")
	r.want(0, "", "projects", "delete", "shop", "--yes")("removed from the console")
}

// unanswered is a project that was made, of which no answer came: its key is kept, and the same
// again finds it made.
func (r *rig) unanswered() {
	r.t.Helper()
	file := r.path("lost-key")
	var lose atomic.Int64 // answers to changes that do not come
	to, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	way := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(to) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		ModifyResponse: func(a *http.Response) error {
			if strings.Contains(a.Request.URL.Path, "/console/projects") && lose.Add(-1) >= 0 {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	})
	defer way.Close()
	ca := r.file("way.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: way.Certificate().Raw})))
	before := os.Getenv("DAVIT_CONSOLES")
	defer r.t.Setenv("DAVIT_CONSOLES", before)
	r.t.Setenv("DAVIT_CONSOLES", r.path("way.json"))
	lost := func(code int, answers int64, args ...string) func(parts ...string) string {
		r.t.Helper()
		lose.Store(answers)
		return r.want(code, "", append([]string{"projects"}, args...)...)
	}
	r.want(0, "", "--console", way.URL, "login", "--ca-file", ca, "--user", "anna", "--password-file", r.path("password"))
	lost(1, 9, "create", "lost", "--recovery-key-file", file)("does not answer", "keep "+file)
	if _, err := os.Lstat(file); err != nil {
		r.t.Fatal(err)
	}
	lost(0, 1, "create", "lost", "--recovery-key-file", file)("project/lost created", "Its admin is anna")
	lost(0, 1, "create", "lost2", "--recovery-key-file", r.path("lost2-key"))("project/lost2 created")
	lost(0, 1, "restore", "lost2", "--yes")("project/lost2 is what its vault has")
	for _, name := range []string{"lost", "lost2"} {
		lost(0, 1, "delete", name, "--yes")("project/"+name+" removed from the console", "keeps all that is there")
	}
}

func (r *rig) staff() {
	r.t.Helper()
	first := r.path("password")
	r.want(0, "", "members")("NAME", "anna  admin")
	r.want(2, "", "members", "list")("takes 0 arguments")
	r.want(2, "", "members", "set", "vera", "--role", "king")(`no role "king"`, "viewer, operator")
	r.want(2, "", "members", "set", "--role", "viewer")("one or more names")
	r.want(3, "", "members", "set", "vera", "--role", "viewer")("not found", "davit users create")
	r.want(3, "", "members", "remove", "anna")("no admin")
	r.want(2, "", "users", "create", "vera")("--password-file is missing")
	r.want(3, "short\n", "users", "create", "vera", "--password-file", "-")("12 characters")
	r.want(0, "", "users", "create", "vera", "--password-file", first)("user/vera created", "davit members set vera")
	r.want(3, "", "users", "create", "vera", "--password-file", first)("exists already")
	r.want(0, "", "users")("anna  yes", "vera")
	r.want(0, "", "members", "set", "vera", "--role", "viewer")("member/vera is viewer")
	r.want(0, "", "members", "set", "vera", "--role", "operator")("member/vera is operator")
	if got := r.want(0, "", "members", "-o", "name")(); got != "member/anna\nmember/vera\n" {
		r.t.Fatalf("%q", got)
	}
	r.want(0, "", "members", "-o", "json")(`"role": "operator"`)
	r.want(1, "", "members", "remove", "vera", "nobody")("member/vera removed", "not found", "was done")
	r.want(0, "", "users", "disable", "vera")("user/vera shut out")
	r.want(0, "", "users", "-o", "json")(`"disabled": true`)
	r.want(0, "", "users", "enable", "vera")("user/vera let in again")
	r.want(2, "", "users", "stop-codes", "vera")("--own-password-file is missing")
	r.want(3, "not hers at all\n", "users", "stop-codes", "vera", "--own-password-file", "-")("your own password is not right")
	r.want(0, "", "users", "stop-codes", "vera", "--own-password-file", first)("no one-time codes")
	r.want(3, "", "users", "disable", "anna")("no administrator would be left")
	r.want(3, "", "users", "enable", "nobody")("not found", "davit users")
	r.own()
}

// own is a person's own password, and what he may not.
func (r *rig) own() {
	r.t.Helper()
	anna := os.Getenv("DAVIT_CONSOLES")
	defer r.t.Setenv("DAVIT_CONSOLES", anna)
	r.t.Setenv("DAVIT_CONSOLES", r.path("vera.json"))
	next := r.file("next", "another horse battery\n")
	in := []string{"--console", r.url, "login", "--ca-file", r.path("data/ca.pem"), "--user", "vera", "--password-file"}
	r.want(0, "", append(in, r.path("password"))...)("user/vera")
	r.want(2, "", "members")("--project is missing")
	r.want(3, "", "members", "--project", "default")("not found", "whoami")
	r.want(3, "", "users")("an administrator of the console may")
	r.want(3, "", "audit", "--of-console")("an administrator of the console may")
	r.want(3, "", "console", "backups")("an administrator of the console may")
	r.want(2, "", "users", "password", "--password-file", next)("--old-password-file and --password-file")
	r.want(3, "", "users", "password", "--old-password-file", next, "--password-file", next)("is wrong", "the old password is not right")
	r.want(0, "", "users", "password", "--old-password-file", r.path("password"), "--password-file", next)("user/vera has a new password", "sessions have ended")
	r.want(3, "", "whoami")("log in first")
	r.want(0, "", append(in, next)...)("user/vera")
}

// quiet is want without keeping what was said, for what says a secret.
func (r *rig) quiet(args ...string) (out, errs string) {
	r.t.Helper()
	var o, e bytes.Buffer
	if code := cli.Main(append([]string{"davit"}, args...), cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e}); code != 0 {
		r.t.Fatalf("davit %q ends with %d: %s", args, code, &e)
	}
	return o.String(), e.String()
}

func (r *rig) tokens() {
	r.t.Helper()
	file := r.path("robot2")
	r.want(0, "", "tokens")("no robots' tokens")
	r.want(2, "", "tokens", "create", "ci2", "--scope", "read")("--token-file is missing")
	r.want(2, "", "tokens", "create", "ci2", "--token-file", file)("--scope is missing")
	r.want(3, "", "tokens", "create", "ci2", "--scope", "read,manage", "--token-file", file)("manage is for people")
	r.want(3, "", "tokens", "create", "ci2", "--scope", "read", "--days", "900", "--token-file", file)("366 days")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		r.t.Fatal("a file is left of a token that was not made: ", err)
	}
	r.want(0, "", "tokens", "create", "ci2", "--scope", "read,audit", "--token-file", file)("created for robot/ci2", "and nowhere else")
	text, err := os.ReadFile(file)
	if info, statErr := os.Stat(file); err != nil || statErr != nil || info.Mode().Perm() != 0o600 || !strings.HasPrefix(string(text), "davit_robot_") {
		r.t.Fatal(err, statErr)
	}
	r.want(3, "", "tokens", "create", "ci3", "--scope", "read", "--token-file", file)("exists and is not overwritten")
	out, errs := r.quiet("tokens", "create", "ci2", "--scope", "read", "--token-file", "-")
	if !regexp.MustCompile(`^davit_robot_\S+\n$`).MatchString(out) || !strings.Contains(errs, "created for robot/ci2") || strings.Contains(errs, strings.TrimSpace(out)) {
		r.t.Fatalf("%d and %q", len(out), errs)
	}
	var all struct{ Items []struct{ ID, Name string } }
	if err := json.Unmarshal([]byte(r.want(0, "", "tokens", "-o", "json")()), &all); err != nil || len(all.Items) != 2 {
		r.t.Fatal(all, err)
	}
	r.want(3, "", "tokens", "revoke", "ci2")("has several", all.Items[0].ID, all.Items[1].ID)
	r.want(0, "", "tokens", "revoke", all.Items[0].ID)("revoked, of robot/ci2")
	r.want(3, "", "tokens", "revoke", all.Items[0].ID)("revoked already")
	r.want(0, "", "tokens", "revoke", "ci2")("token/" + all.Items[1].ID)
	r.want(3, "", "tokens", "revoke", "ci2")("davit tokens")
	r.want(0, "", "tokens")("revoked")
	r.want(0, "", "agents")("No agent was let into")
	r.want(2, "", "agents", "token", "east", "--for", "1s", "--token-file", r.path("east"))("at least 1m")
	r.want(0, "", "agents", "token", "east", "--token-file", r.path("east"))("agent/east may be let in until", "davit enrol --console "+r.url)
	if text, err := os.ReadFile(r.path("east")); err != nil || len(text) < 40 {
		r.t.Fatal(err)
	}
	r.want(3, "", "agents", "remove", "east")("not found", "davit agents")
	r.want(0, "", "events")("No agent has told")
}

func (r *rig) log() {
	r.t.Helper()
	said := r.want(0, "", "audit", "--action", "member.*")("member.set", "member.remove", "vera")
	if strings.Contains(said, "token.create") || strings.Index(said, "member.set") > strings.Index(said, "member.remove") {
		r.t.Fatal("not filtered, or not the oldest first: ", said)
	}
	if got := strings.Count(r.want(0, "", "audit", "--limit", "3")(), "\n"); got != 4 {
		r.t.Fatalf("%d lines", got)
	}
	r.want(0, "", "audit", "--by", "nobody")("no such record")
	r.want(0, "", "audit", "--since", "1h", "--by", "anna", "-o", "json")(`"user/anna"`)
	r.want(2, "", "audit", "--since", "noon")("is not valid")
	r.want(0, "", "audit", "--of-console", "--action", "user.create")("vera")
	r.want(0, "", "audit", "--of-console", "--refused")
	r.want(2, "", "audit", "--verify", "--by", "anna")("whole log")
	r.want(2, "", "audit", "--expect", "1:x")("NUMBER:HASH")
	tail := regexp.MustCompile(`\d+:[0-9a-f]{64}`).FindString(r.want(0, "", "audit", "--verify")("is whole"))
	r.want(2, "", "audit", "--expect", tail)("add --verify")
	r.want(0, "", "members", "set", "vera", "--role", "viewer")
	r.want(0, "", "audit", "--verify", "--expect", tail)("is whole")
	number, _, _ := strings.Cut(tail, ":")
	r.want(6, "", "audit", "--verify", "--expect", number+":"+strings.Repeat("0", 64))("not there any more")
	r.want(0, "", "audit", "--verify", "--of-console")("of the console is whole")
}

// followLog follows in a process of its own.
func (r *rig) followLog() {
	r.t.Helper()
	cmd, out, errs := r.start("audit", "-f", "--action", "member.*", "--limit", "1", "-o", "json")
	go func() { _, _ = io.Copy(r, errs) }()
	lines := make(chan string)
	go func() {
		for all := bufio.NewScanner(out); all.Scan(); {
			lines <- all.Text()
		}
		close(lines)
	}()
	want := func(word string) {
		r.t.Helper()
		select {
		case line := <-lines:
			if !strings.Contains(line, word) {
				r.t.Fatalf("%s does not say %s", line, word)
			}
		case <-time.After(patience):
			r.t.Fatalf("no %s: %s", word, r.text())
		}
	}
	want(`"detail":"viewer"`)
	r.want(0, "", "members", "set", "vera", "--role", "operator")
	want(`"detail":"operator"`)
	r.want(0, "", "members", "remove", "vera")
	want(`"action":"member.remove"`)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Fatal(err)
	}
	if line, more := <-lines; more {
		r.t.Fatal("more: ", line)
	}
	if err := cmd.Wait(); err != nil {
		r.t.Fatal("an interrupted command ends with ", err)
	}
}

func (r *rig) fleet() {
	r.t.Helper()
	r.fill()
	var o control.Overview
	consoletest.Until(r.t, "the fleet shown", func() (bool, string) {
		out, _ := r.quiet("fleet", "-o", "json")
		o = control.Overview{}
		return json.Unmarshal([]byte(out), &o) == nil && len(o.Applications) == 2 && len(o.Sites) == 2 && o.Applications[1].Level != "" && o.Applications[1].LastDrill != nil, out
	})
	if a := o.Applications[0]; a.Name != "wiki" || a.State != "Lagging" || a.Site != "west" || a.Lost == nil || *a.Lost < 3600 || a.RPO != 3600 || a.Verified.IsZero() || a.LastDrill != nil {
		r.t.Errorf("%+v", a)
	}
	if a := o.Applications[1]; a.Name != "shop" || a.LastDrill == nil || !a.LastDrill.Good || len(a.Plans) != 1 || a.Plans[0] != "shop" || a.RPO != 900 || o.Silent != "" || len(o.Tasks) == 0 {
		r.t.Errorf("%+v", a)
	}
	r.want(0, "", "fleet")("SITE", "APPLICATION", "Lagging", "To look at, the most urgent first:", "1d", ", good")
	names := func(by string) string { return r.want(0, "", "fleet", "--sort", by, "-o", "name")() }
	if names("name") != "application/shop\napplication/wiki\n" || names("-name") != names("-lost") || names("-lost") != "application/wiki\napplication/shop\n" || names("drill") != names("-lost") {
		r.t.Error("not sorted")
	}
	r.want(2, "", "fleet", "--sort", "colour")("not sorted by")
	r.want(4, "", "fleet", "--fail-unprotected")("Lagging")
}

// tampered changes a record behind the console's back: who verifies finds it.
func (r *rig) tampered() {
	r.t.Helper()
	r.want(0, "", "audit", "--verify")("is whole")
	files, err := filepath.Glob(r.path("data/projects/*.db"))
	if err != nil || len(files) != 1 {
		r.t.Fatal(files, err)
	}
	db, err := sql.Open("sqlite", "file:"+files[0]+"?_pragma=busy_timeout(60000)") // the console writes too
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	for _, text := range []string{"DROP TRIGGER audit_stays", `UPDATE audit SET record = replace(record, '"detail":"operator"', '"detail":"admin"') WHERE sequence = (SELECT min(sequence) FROM audit WHERE record LIKE '%"detail":"operator"%')`} {
		if result, err := db.ExecContext(r.t.Context(), text); err != nil {
			r.t.Fatal(result, err)
		}
	}
	r.want(6, "", "audit", "--verify")("is not what was written", "find out who could write there")
}
