package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/api"
	"davit.dev/davit/internal/console/client"
)

// maxSecret bounds what is read for a password, a code or a token.
const maxSecret = 4096

type entrance struct {
	user, passwordFile, tokenFile string
	caFile, pin                   string
	project                       string
	sso                           bool
}

func loginCommand(h Host) *cobra.Command {
	var o entrance
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in to a console, for the commands that work at one",
		Long: `Logs a person in with password and one-time code, or takes a robot's token, and keeps what comes of it in
~/.config/davit/consoles.json ($DAVIT_CONSOLES names another file), which nobody else may read. The password is asked for unless
--password-file names a file; then the code is asked for: an empty line if you have none. --sso has you log in by the console's login
provider: it prints an address and a code, and waits until you have logged in there.

The console is known by --ca-file, the ca.pem of its directory, or by --ca-fingerprint, the SHA-256 of a certificate that it presents.
What vouched for it is kept too. Without either, the machine's authorities have to vouch for it, or what is kept from the login before.`,
		Example: `  davit login --console https://console.example.com:8443 --ca-file ca.pem --user anna
  davit login --console https://console.example.com:8443 --ca-file ca.pem --token-file ./robot.token --project shop`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Working(cmd)
			defer cancel()
			return h.login(ctx, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.user, "user", "", "name of the person")
	flags.StringVar(&o.passwordFile, "password-file", "", "file with the password; - is standard input, as is asking where no terminal is")
	flags.StringVar(&o.tokenFile, "token-file", "", "file with a robot's token instead; - is standard input; needs --project")
	flags.BoolVar(&o.sso, "sso", false, "log a person in by the console's login provider instead, in a browser anywhere")
	flags.StringVar(&o.caFile, "ca-file", "", "PEM file with the certificate of the console's authority")
	flags.StringVar(&o.pin, "ca-fingerprint", "", "SHA-256 of a certificate that the console has to present, instead of --ca-file")
	flags.StringVar(&o.project, "project", "", "project to keep as the default (default: the only one in which you have a role)")
	return cmd
}

func (o entrance) check(url string) error {
	switch {
	case url == "":
		return exit.Usage("such as --console https://console.example.com:8443", "--console is missing")
	case len(slices.DeleteFunc([]bool{o.user != "", o.tokenFile != "", o.sso}, func(given bool) bool { return !given })) != 1:
		return exit.Usage("", "give one of --user or --sso for a person, or --token-file for a robot")
	case o.tokenFile != "" && o.project == "":
		return exit.Usage("", "--project is missing: a robot's token is of one project")
	case o.user == "" && o.passwordFile != "":
		return exit.Usage("", "--password-file goes with --user")
	case o.caFile != "" && o.pin != "":
		return exit.Usage("", "give one of --ca-file and --ca-fingerprint")
	}
	return nil
}

// trust is how the console is known: what is given, or what is kept of it. The
// certificate that a fingerprint found is kept in the entry.
func (o entrance) trust(e *Entry) (client.Trust, error) {
	switch {
	case o.caFile != "":
		text, err := os.ReadFile(o.caFile)
		if err != nil {
			return client.Trust{}, exit.AsUsage(fmt.Errorf("read certificate of the authority: %w", err))
		}
		e.CA = string(text)
	case o.pin != "":
		pin, err := client.ParsePin(o.pin)
		if err != nil {
			return client.Trust{}, exit.AsUsage(err)
		}
		return client.Trust{Pin: pin, Pinned: func(ca string) { e.CA = ca }}, nil
	}
	return client.Trust{CA: e.CA}, nil
}

func (h Host) login(ctx context.Context, o entrance) error {
	if err := o.check(h.URL()); err != nil {
		return err
	}
	b, err := h.book()
	if err != nil {
		return err
	}
	e := Entry{URL: trimmed(h.URL())}
	if old, err := b.find(h.URL()); err == nil {
		e.CA = old.CA
	}
	trust, err := o.trust(&e)
	if err != nil {
		return err
	}
	c, err := client.New(e.URL, "", trust)
	if err != nil {
		return exit.AsUsage(err)
	}
	defer c.Close()
	c.Moved = h.moved
	switch {
	case o.tokenFile != "":
		err = h.robot(ctx, c, o, &e)
	case o.sso:
		err = h.vouched(ctx, c, o, &e)
	default:
		err = h.person(ctx, c, o, &e)
	}
	if err != nil {
		return err
	}
	e.URL = c.URL()
	b.keep(e)
	if err := b.write(); err != nil {
		return err
	}
	return h.Print(LoggedIn{Console: e.URL, Name: e.Name, Project: e.Project, Expires: e.Expires, File: b.path})
}

// person lets a person in, and chooses the project.
func (h Host) person(ctx context.Context, c *client.Client, o entrance, e *Entry) error {
	password, code, err := h.secrets(o)
	if err != nil {
		return err
	}
	in, err := c.Login(ctx, o.user, password, code)
	if client.Is(err, 401) {
		return exit.Refuse("the console does not say which of them; after five wrong tries it takes one in 30 seconds", "%v", err)
	}
	if err != nil {
		return h.explain(err)
	}
	e.Name = "user/" + o.user
	return h.in(ctx, c, o, e, in)
}

// vouched lets a person in for whom the console's login provider vouches.
func (h Host) vouched(ctx context.Context, c *client.Client, o entrance, e *Entry) error {
	d, err := c.BeginDevice(ctx)
	if client.Is(err, 404) {
		return exit.Refuse("log in with --user NAME", "%v", err)
	}
	if err != nil {
		return h.explain(err)
	}
	h.Progress().Done()
	fmt.Fprintf(h.Err, "Open %s in a browser, check that it asks for the code %s, and log in there. Waiting until %s.\n", d.URL, d.Code, output.Time(d.Expires))
	in, err := c.FinishDevice(ctx, d)
	if client.Is(err, 401) || client.Is(err, 403) {
		return exit.Refuse("`login --sso` begins anew", "%v", err)
	}
	if err != nil {
		return h.explain(err)
	}
	who, err := c.Whoami(ctx)
	if err != nil {
		return h.explain(err)
	}
	e.Name = "user/" + who.Name
	return h.in(ctx, c, o, e, in)
}

// in keeps a session, and chooses the project.
func (h Host) in(ctx context.Context, c *client.Client, o entrance, e *Entry, in api.LoggedIn) error {
	e.Token, e.Expires = in.Token, in.Expires
	all, err := c.Projects(ctx)
	if err == nil {
		e.Project, err = choose(all, o.project)
	}
	if err != nil { // nobody will use this session
		return h.explain(errors.Join(err, c.Logout(ctx)))
	}
	return nil
}

func choose(all []api.ProjectItem, wanted string) (string, error) {
	if wanted == "" && len(all) == 1 {
		return all[0].Name, nil
	}
	for _, p := range all {
		if p.Name == wanted {
			return wanted, nil
		}
	}
	if wanted != "" {
		return "", exit.Refuse("leave --project out and look with `whoami`", "you have no role in a project %s", wanted)
	}
	return "", nil
}

// robot tries a robot's token.
func (h Host) robot(ctx context.Context, c *client.Client, o entrance, e *Entry) error {
	token, err := h.file("token", o.tokenFile)
	if err != nil {
		return err
	}
	if _, ok := account.RobotID(token); !ok {
		return exit.Usage("it begins with davit_robot_", "what is in %s is no robot's token", o.tokenFile)
	}
	c.SetToken(token)
	s, err := c.Standing(ctx, o.project)
	if client.Is(err, 401) {
		return exit.Refuse("an admin of the project makes a new one", "the console takes the token not, or not for project %s: it is of another one, expired or revoked", o.project)
	}
	if err != nil {
		return h.explain(err)
	}
	e.Token, e.Name, e.Project, e.Expires = token, s.Name, o.project, s.Expires
	return nil
}

// file reads a secret from a file.
func (h Host) file(what, name string) (string, error) {
	in := h.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", exit.AsUsage(fmt.Errorf("read %s: %w", what, err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// secrets are password and code. From standard input that is no terminal they are
// a line each.
func (h Host) secrets(o entrance) (password, code string, err error) {
	lines := bufio.NewReader(io.LimitReader(h.In, 2*maxSecret))
	if o.passwordFile != "" && o.passwordFile != "-" {
		if password, err = h.file("password", o.passwordFile); err != nil {
			return "", "", err
		}
	} else if password, err = h.secret(lines, "Password of "+o.user); err != nil {
		return "", "", err
	}
	if password == "" {
		return "", "", exit.Usage("", "the password is empty")
	}
	code, err = h.secret(lines, "One-time code (empty: none)")
	return password, code, err
}

// secret asks for a line, which no terminal shows. The end of the input is an
// empty line.
func (h Host) secret(lines *bufio.Reader, what string) (string, error) {
	h.Progress().Done()
	if f, ok := h.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(h.Err, "%s: ", what)
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(h.Err)
		if err != nil {
			return "", fmt.Errorf("read answer: %w", err)
		}
		return string(text), nil
	}
	text, err := lines.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// LoggedIn is what `login` did.
type LoggedIn struct {
	Console string    `json:"console"`
	Name    string    `json:"name"`
	Project string    `json:"project,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	File    string    `json:"file"`
}

// Document implements output.Result.
func (l LoggedIn) Document() any { return l }

// Text implements output.Result.
func (l LoggedIn) Text(t *output.Text) {
	t.Line("Logged in to %s as %s, until %s at the latest.", l.Console, l.Name, output.Time(l.Expires))
	if l.Project == "" {
		t.Line("Commands need --project: you have a role in several projects, or in none; `davit whoami` lists them.")
	}
}

func logoutCommand(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Log out of a console",
		Long: `Ends the session at the console and forgets it here. Where the console does not answer, it is forgotten here alone, and the command
ends with 4: whoever has a copy of the session can use it until it ends. A robot's token is forgotten here; an admin revokes it.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Looking(cmd)
			defer cancel()
			return h.logout(ctx)
		},
	}
}

func (h Host) logout(ctx context.Context) error {
	s, err := h.open("")
	if err != nil {
		return err
	}
	defer s.Close()
	left := ""
	if account.IsSession(s.entry.Token) {
		if err := s.Logout(ctx); err != nil && !client.Is(err, 401) {
			left = err.Error()
		}
	}
	b, err := h.book()
	if err != nil {
		return err
	}
	b.drop(s.entry.URL)
	if err := b.write(); err != nil {
		return err
	}
	if err := h.Print(LoggedOut{Console: s.entry.URL, Name: s.entry.Name, Left: left, Expires: s.entry.Expires}); err != nil {
		return err
	}
	if left != "" {
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// LoggedOut is what `logout` did.
type LoggedOut struct {
	Console string    `json:"console"`
	Name    string    `json:"name"`
	Left    string    `json:"left,omitempty"` // why the session goes on at the console
	Expires time.Time `json:"expires,omitzero"`
}

// Document implements output.Result.
func (l LoggedOut) Document() any { return l }

// Text implements output.Result.
func (l LoggedOut) Text(t *output.Text) {
	t.Line("%s is logged out of %s here.", l.Name, l.Console)
	if l.Left != "" {
		t.Line("The session goes on there, until %s at the latest: %s.", output.Time(l.Expires), l.Left)
	}
}

func whoamiCommand(h Host) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Who you are at a console, and in which projects you may do what",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := h.Looking(cmd)
			defer cancel()
			s, err := h.open("")
			if err != nil {
				return err
			}
			defer s.Close()
			who, err := s.who(ctx)
			if err != nil {
				return h.explain(err)
			}
			return h.Print(who)
		},
	}
}

func (s *session) who(ctx context.Context) (Who, error) {
	w := Who{Console: s.URL(), Name: s.entry.Name, Project: s.Project, Expires: s.entry.Expires}
	names := []string{s.Project}
	if account.IsSession(s.entry.Token) {
		person, err := s.Whoami(ctx)
		if err != nil {
			return w, err
		}
		w.Name, w.Administrator, w.Codes = "user/"+person.Name, person.Administrator, person.Codes
		all, err := s.Projects(ctx)
		if err != nil {
			return w, err
		}
		names = nil
		for _, p := range all {
			names = append(names, p.Name)
		}
	}
	for _, name := range names {
		standing, err := s.Standing(ctx, name)
		if err != nil {
			return w, err
		}
		w.Projects = append(w.Projects, standing)
	}
	return w, nil
}

// Who is what `whoami` found.
type Who struct {
	Console       string         `json:"console"`
	Name          string         `json:"name"`
	Administrator bool           `json:"administrator,omitempty"`
	Codes         bool           `json:"codes,omitempty"`
	Project       string         `json:"project,omitempty"` // the default
	Expires       time.Time      `json:"expires,omitzero"`
	Projects      []api.Standing `json:"projects"`
}

// Document implements output.Result.
func (w Who) Document() any { return w }

// Text implements output.Result.
func (w Who) Text(t *output.Text) {
	also := ""
	if w.Administrator {
		also = ", administrator"
	}
	t.Line("%s%s at %s, until %s at the latest", w.Name, also, w.Console, output.Time(w.Expires))
	if len(w.Projects) == 0 {
		t.Line("You have a role in no project: an admin of one gives it.")
		return
	}
	t.Line("")
	var rows [][]string
	for _, p := range w.Projects {
		var may []string
		for _, permission := range p.Permissions {
			may = append(may, string(permission))
		}
		rows = append(rows, []string{p.Project, p.Role, strings.Join(may, ", ")})
	}
	t.Table("", output.Columns("PROJECT", "ROLE", "MAY"), rows)
}
