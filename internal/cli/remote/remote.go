// Package remote is the command line at a console: it logs in, and applies, gets,
// compares, deletes and watches the documents that the console keeps. It works
// with the rights of whoever is logged in there, and asks no cluster.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/client"
	"davit.dev/davit/internal/console/document"
)

// Host is what the command line gives its commands.
type Host struct {
	In       io.Reader
	Out, Err io.Writer
	Print    func(output.Result) error
	Format   func() output.Format
	Progress func() *output.Progress
	Now      func() time.Time
	Getenv   func(string) string
	// Looking bounds a command that only looks, Working one that works.
	Looking, Working func(*cobra.Command) (context.Context, context.CancelFunc)
	// URL is the console that --console names.
	URL func() string
	// AskFor has a person type a name.
	AskFor func(name, what string) error
}

// mark is the annotation of commands that --console is for.
const mark = "davit.dev/console"

// Commands makes the commands.
func Commands(h Host) []*cobra.Command {
	all := []*cobra.Command{
		loginCommand(h), logoutCommand(h), whoamiCommand(h),
		applyCommand(h), getCommand(h), diffCommand(h), deleteCommand(h), watchCommand(h), h.restoresCommand(),
	}
	for _, cmd := range all {
		cmd.Annotations = map[string]string{mark: "yes"}
	}
	output.WithNames(all[3:]...) // not those about a login
	return all
}

// Flag adds --console, which is for these commands alone: Check refuses it for
// others. Commands that tell an agent of consoles have a flag of that name of
// their own.
func Flag(flags *pflag.FlagSet, url *string) {
	flags.StringVar(url, "console", "", "console to work at, https://HOST:PORT, for the commands at a console (default: the only one that you are logged in to), and for restore, failover, switchover, failback, drill and runs (default: at the cluster)")
}

// Check refuses --console where it would be without effect: a command that changes
// a cluster must not be taken for one that asks a console.
func Check(cmd *cobra.Command, url string) error {
	if url == "" {
		return nil
	}
	if cmd.Annotations[mark] == "" && cmd.CommandPath() == cmd.Root().Name()+" status" {
		return exit.Usage("`fleet` shows a project as its console knows it, what needs you first; `console status` the console itself", "status works at a cluster and its vault, not at a console")
	}
	if cmd.Annotations[mark] == "" {
		return exit.Usage("leave --console out; `get --help` and the like show what it is for", "%s works at a cluster and its vault, not at a console", cmd.Name())
	}
	return exit.AsUsage(client.CheckURL(url))
}

// exactly checks how many arguments there are.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) != n {
			return exit.Usage("`"+cmd.Name()+" --help` shows how", "%s takes %d arguments, but was given %q", cmd.Name(), n, given)
		}
		return nil
	}
}

// session is a console that somebody is logged in to.
type session struct {
	*client.Client
	entry Entry
	// Project is the project to work in.
	Project string
}

// open finds the console and who is logged in there.
func (h Host) open(project string) (*session, error) {
	b, err := h.book()
	if err != nil {
		return nil, err
	}
	e, err := b.find(h.URL())
	if err != nil {
		return nil, err
	}
	c, err := client.New(e.URL, e.Token, client.Trust{CA: e.CA})
	if err != nil {
		return nil, err
	}
	c.Moved = h.moved
	s := &session{Client: c, entry: e, Project: e.Project}
	if project != "" {
		s.Project = project
	}
	return s, nil
}

func (h Host) moved(active string) {
	h.Progress().Done()
	fmt.Fprintf(h.Err, "warning: that console stands by; asking the active one, %s\n", active)
}

// working is open for a command that needs a project.
func (h Host) working(project string) (*session, error) {
	s, err := h.open(project)
	if err != nil {
		return nil, err
	}
	if s.Project == "" {
		s.Close()
		return nil, exit.Usage("`whoami` lists your projects; `login --project NAME` keeps one as the default", "--project is missing: you have a role in several, or in none")
	}
	return s, nil
}

// explain adds what to do next, and how the command ends.
func (h Host) explain(err error) error {
	var said *client.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exit.ErrInterrupted), errors.Is(err, exit.ErrTimeout):
		return err
	case errors.Is(err, client.ErrTrust):
		return exit.Refuse("`login --console URL --ca-file ca.pem`, with the ca.pem of the console's directory; or --ca-fingerprint, after you have compared it with what the console's keeper reads there: openssl x509 -in ca.pem -noout -fingerprint -sha256", "%v", err)
	case errors.Is(err, client.ErrUnreachable):
		return &exit.Error{Code: exit.Failed, Err: err, Hint: "is the console up, and is the address right? Sites protect and recover without it. What was being changed may have been done: the same command again is safe"}
	case !errors.As(err, &said):
		return err
	}
	return refusal(err, said)
}

func refusal(err error, said *client.Error) error {
	hint := ""
	switch {
	case said.Active != "":
		hint = "ask the active console: `login --console " + said.Active + "`"
	case said.Code == http.StatusUnauthorized:
		hint = "`login` again: sessions end after 8 hours without a request and after 7 days, tokens when they expire or are revoked"
	case said.Code == http.StatusForbidden:
		hint = "`whoami` says what you may; an admin of the project gives roles"
	case said.Code == http.StatusConflict && strings.Contains(said.Message, gone):
		hint = "somebody deleted it since: without metadata.resourceVersion the document is made anew"
	case said.Code == http.StatusConflict && strings.Contains(said.Message, "resourceVersion"):
		hint = "somebody changed it since: `get KIND NAME -o yaml` shows what it is now; bring your change in and apply that. Without metadata.resourceVersion a document replaces whatever is there"
	case said.Code == http.StatusNotFound:
		hint = "`get KIND` lists what there is; `whoami` lists your projects"
	case said.Code == http.StatusTooManyRequests || said.Code >= http.StatusInternalServerError:
		return &exit.Error{Code: exit.Failed, Err: err, Hint: "give the same command again in a minute"}
	}
	return exit.Refuse(hint, "%v", err)
}

// alias are what people type for kinds beside their names and plurals.
var alias = map[string]string{"app": "Application", "apps": "Application", "policy": "ProtectionPolicy", "policies": "ProtectionPolicy", "plan": "RecoveryPlan", "plans": "RecoveryPlan"}

func kindNamed(text string) (*document.Kind, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."+v1alpha1.GroupVersion.Group))
	if long, ok := alias[name]; ok {
		name = long
	}
	if k, ok := document.Find(name); ok {
		return k, nil
	}
	return nil, exit.Usage("applications (app), protectionpolicies (policy) and recoveryplans (plan) are", "a console keeps no %q", text)
}

func kindNames() []string {
	var all []string
	for _, k := range document.Kinds() {
		all = append(all, k.Plural)
	}
	return all
}

// target is one document on the command line, or all of a kind.
type target struct {
	kind      *document.Kind
	namespace string
	name      string // empty: all
}

func (t target) ref(project string) client.Ref {
	return client.Ref{Project: project, Kind: t.kind.Plural, Namespace: t.namespace, Name: t.name}
}

// String is as kubectl names objects.
func (t target) String() string {
	return strings.ToLower(t.kind.Name) + "." + v1alpha1.GroupVersion.Group + "/" + t.name
}

// targets reads KIND, KIND NAME..., or KIND/NAME... .
func targets(given []string, namespace string) (all []target, err error) {
	one := func(kind, name string) error {
		k, err := kindNamed(kind)
		if err != nil {
			return err
		}
		t := target{kind: k, name: name}
		if t.kind.Namespaced {
			t.namespace = namespace
			if name != "" && namespace == "" {
				t.namespace = v1alpha1.SystemNamespace
			}
		}
		all = append(all, t)
		return nil
	}
	switch {
	case len(given) == 0:
		return nil, exit.Usage("such as `get applications`, `get app shop`, `get policy/hourly plan/shop`", "the kind is missing")
	case !strings.Contains(given[0], "/") && len(given) == 1:
		for kind := range strings.SplitSeq(given[0], ",") {
			if err := one(kind, ""); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	for i, word := range given {
		kind, name, ok := strings.Cut(word, "/")
		switch {
		case strings.Contains(given[0], "/") && (!ok || name == ""), !strings.Contains(given[0], "/") && i > 0 && ok:
			return nil, exit.Usage("", "%q: write KIND NAME..., or KIND/NAME for each", word)
		case ok:
			err = one(kind, name)
		case i > 0:
			err = one(given[0], word)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// projectFlag and namespaceFlag add flags that several commands have.
func projectFlag(flags *pflag.FlagSet, project *string) {
	flags.StringVar(project, "project", "", "project to work in (default: the one kept at login)")
}

func namespaceFlag(flags *pflag.FlagSet, namespace *string) {
	flags.StringVarP(namespace, "namespace", "n", "", "namespace of the documents (default: all of a list, davit-system for one)")
}
