// Package runbook writes a plan down as instructions for a person who has
// never done it: first with davit, then by hand. Pure; the same plan and facts give the
// same text.
package runbook

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/preflight"
)

// Input is what a runbook is written from.
type Input struct {
	Plan     *plan.Plan
	Verb     plan.Verb
	File     string // how the plan's file is named in commands
	From, To string // "": as the run finds it
	At       time.Time
	// Findings, Needs and Expect are the newest facts; nil: none were asked for.
	Findings []preflight.Finding
	Needs    []preflight.Need
	Expect   string // how long it takes, in words
}

// Book is a runbook.
type Book struct {
	Title    string
	Intro    []string
	Sections []Section
}

// Section is a part of it.
type Section struct {
	Title string
	Text  []string
	Items []Item
}

// Item is one thing to do.
type Item struct {
	Title     string
	Why       string
	Commands  []string
	See       string // what is to be seen
	Otherwise string // what to do if it is not
}

// Make writes a runbook. The plan must be without problems.
func Make(in Input) (*Book, error) {
	g, err := in.Plan.Graph(in.Verb)
	if err != nil {
		return nil, fmt.Errorf("write runbook: %w", err)
	}
	in.File = cmp.Or(in.File, in.Plan.Name+".yaml")
	from, to := in.place(in.From, "the lost site"), in.place(in.To, "the target")
	b := &Book{
		Title: fmt.Sprintf("Runbook: %s of %s to %s", in.Verb, in.Plan.Name, to),
		Intro: []string{
			fmt.Sprintf("Written on %s from plan %s. Write it anew when the plan changes; keep it where you can read it when both sites are gone.", in.At.UTC().Format("2006-01-02 15:04Z"), in.Plan.Name),
			fmt.Sprintf("%s %s from %s to %s. Work at %s: every command below takes its kubeconfig, unless it says otherwise.", does(in.Verb), strings.Join(names(in.Plan), ", "), from, to, to),
		},
	}
	if in.Expect != "" {
		b.Intro = append(b.Intro, in.Expect)
	}
	b.Sections = append(b.Sections, in.before(from, to), in.withDavit(to))
	if s, any := in.facts(); any {
		b.Sections = append(b.Sections, s)
	}
	b.Sections = append(b.Sections, in.byHand(g, from, to), in.after(from, to))
	return b, nil
}

func does(v plan.Verb) string {
	if v == plan.Drill {
		return "It tries to move, on copies,"
	}
	return "It moves"
}

func (in Input) place(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return "site " + name
}

func names(p *plan.Plan) []string {
	var all []string
	for _, a := range p.Applications {
		all = append(all, a.Name)
	}
	return all
}

// before is what must be there, and who decides.
func (in Input) before(from, to string) Section {
	s := Section{Title: "Before you begin"}
	s.Items = append(
		s.Items,
		Item{Title: "Have these at hand", Commands: []string{
			"export KUBECONFIG=...                  # of " + to,
			"davit version",
			"davit plan validate " + in.File,
		}, See: "davit answers, and the plan is valid.", Otherwise: "Where there are several vaults, give --vault NAME with every command. Without a Vault object at " + to + ", give --vault-url, --recovery-key-file and the store's keys (DAVIT_ACCESS_KEY, DAVIT_SECRET_KEY) with every command."},
		Item{
			Title: "Look whether it would work", Commands: in.rehearsal(),
			See: "No line begins with fail. The dry run says what will be lost.", Otherwise: "Each line says what to do about it. What is not known is not a reason to wait when " + from + " is gone.",
		},
	)
	if in.Verb == plan.Failover {
		s.Items = append(s.Items, Item{
			Title: "Decide that " + from + " is lost", Why: "Work done there after the newest recovery point is lost. Two sites that both write lose more.",
			Commands:  []string{"davit status", "kubectl --kubeconfig FILE-OF-" + strings.ToUpper(strings.ReplaceAll(from, " ", "-")) + " get nodes"},
			See:       "Nobody reaches it, or whoever may decide has decided.",
			Otherwise: "If it lives and answers, use a switchover: davit switchover -f " + in.File + " loses nothing.",
		})
	}
	for _, a := range in.Plan.Approvals {
		if len(a.Verbs) == 0 && in.Verb != plan.Drill || contains(a.Verbs, in.Verb) {
			s.Items = append(s.Items, Item{Title: fmt.Sprintf("Have %d people approve", a.Count), Why: "It takes " + a.Who() + ", and not whoever asked for the run.", Commands: []string{"davit runs approve RUN"}, See: "The run leaves AwaitingApproval.", Otherwise: "davit runs show RUN says who has approved."})
		}
	}
	return s
}

func (in Input) rehearsal() []string {
	all := []string{"davit plan validate " + in.File + " --sites"}
	if in.Verb == plan.Restore { // no command has it
		return all
	}
	return append(all, "davit "+string(in.Verb)+" -f "+in.File+" --dry-run")
}

func contains(all []plan.Verb, v plan.Verb) bool {
	for _, x := range all {
		if x == v {
			return true
		}
	}
	return false
}

// withDavit is the way to take as long as davit works.
func (in Input) withDavit(to string) Section {
	command := fmt.Sprintf("davit %s -f %s", in.Verb, in.File)
	if in.To != "" {
		command += " --to " + in.To
	}
	switch {
	case in.Verb == plan.Drill:
		return Section{Title: "With davit: do this first", Items: []Item{
			{
				Title: "Start the drill", Commands: []string{command},
				See:       "It ends with 0: the plan works, and its sandbox is gone.",
				Otherwise: "davit runs show RUN says which step failed, and why. davit drill --sweep removes what a dead drill left.",
			},
			{Title: "Keep its evidence", Commands: []string{"davit runs report RUN -o html > drill.html"}, See: "The drill passed.", Otherwise: "It says what did not."},
		}}
	case !in.Verb.Moves():
		return Section{Title: "With davit", Text: []string{"No run carries a " + string(in.Verb) + " of a plan out: do it step by step, as below."}}
	}
	return Section{Title: "With davit: do this first", Items: []Item{
		{
			Title: "Start the run", Commands: []string{command},
			See:       "It asks for the plan's name, then tells every step as it ends.",
			Otherwise: "It says what it lacks, and has changed nothing.",
		},
		{
			Title: "When it waits for you", Commands: []string{"davit runs show RUN", "davit runs consent RUN SITE    # you made sure that the site has stopped", "davit runs answer RUN STEP     # a task of yours is done", "davit runs retry RUN"},
			See: "State and reason of the run, step by step.", Otherwise: "davit runs rollback RUN takes back what it did.",
		},
		{
			Title: "When the process that carries it dies", Commands: []string{"davit runs ls", "davit runs take-over RUN"},
			See: "It goes on where it was, 15 seconds later.", Otherwise: "Wait those 15 seconds, at " + to + ", and give it again.",
		},
		{Title: "End it", Commands: []string{"davit runs commit RUN"}, See: "State Completed.", Otherwise: "Until then davit runs rollback RUN takes it back."},
	}}
}

// facts are the newest facts.
func (in Input) facts() (Section, bool) {
	if len(in.Findings) == 0 {
		return Section{}, false
	}
	s := Section{Title: "What was known when this was written"}
	for _, n := range in.Needs {
		if n.Why != "" {
			s.Text = append(s.Text, fmt.Sprintf("%s: %s.", n.Application, n.Why))
			continue
		}
		s.Text = append(s.Text, fmt.Sprintf("%s: newest recovery point %s, of %s, with %d volumes.", n.Application, n.Point, n.Instant.UTC().Format("2006-01-02 15:04:05Z"), len(n.Volumes)))
	}
	for _, f := range in.Findings {
		if f.Verdict != preflight.OK {
			s.Text = append(s.Text, fmt.Sprintf("%s, %s: %s. To do: %s.", f.Verdict, f.Check, strings.TrimSuffix(strings.Trim(f.Where()+": "+f.Reason, ": "), "."), f.Remedy))
		}
	}
	return s, true
}

// byHand is every step of the run, in an order in which one person can do them.
func (in Input) byHand(g *plan.Graph, from, to string) Section {
	s := Section{
		Title: "By hand: only if the run cannot be started",
		Text: []string{
			"Do the steps from the top; each waits for those that it names. Write what stands in capitals as it is with you: FILE is a kubeconfig of " + from + ". One command, at apply, claims, restores and starts an application: claim, data, scale and ready say what is to be seen of it.",
		},
	}
	for i, step := range g.Steps {
		item := in.item(step, from, to)
		item.Title = fmt.Sprintf("%d. %s", i+1, step.Name)
		if len(step.After) > 0 {
			item.Title += ", after " + strings.Join(step.After, ", ")
		}
		if step.NoWayBack {
			item.Why = strings.TrimSpace(item.Why + " There is no way back after it.")
		}
		if step.Timeout > 0 {
			item.Otherwise = strings.TrimSpace(item.Otherwise + " The plan gives it " + preflight.Span(step.Timeout) + ", and then: " + onError[step.OnError] + ".")
		}
		s.Items = append(s.Items, item)
	}
	return s
}

var onError = map[plan.OnError]string{plan.Stop: "stop and decide", plan.Continue: "go on without it", plan.Rollback: "take everything back", "": "stop and decide"}

// after is what is left to do.
func (in Input) after(from, to string) Section {
	if in.Verb == plan.Drill {
		return Section{Title: "Afterwards", Items: []Item{
			{Title: "See that nothing of it is left", Commands: []string{"kubectl get namespaces -l davit.dev/sandbox"}, See: "None of this plan.", Otherwise: "davit drill --sweep."},
		}}
	}
	s := Section{Title: "Afterwards", Items: []Item{
		{Title: "See that it is protected at " + to, Commands: []string{"davit status", "davit backup " + names(in.Plan)[0]}, See: "Every application is Protected, held by " + to + ".", Otherwise: "davit describe APPLICATION says what keeps it."},
	}}
	if in.Verb == plan.Switchover || in.Verb == plan.Failback {
		let := Item{
			Title: "If you held it at rest by hand: let go at " + from, Why: "Else it does not start there when it comes back.",
			See: "davit status, with that kubeconfig, says Superseded. Nothing starts there.", Otherwise: "If it is Active there, it was not claimed at " + to + ", and starts again.",
		}
		for _, app := range names(in.Plan) {
			let.Commands = append(let.Commands, annotate("kubectl --kubeconfig FILE", app, heldBy+"-"))
		}
		s.Items = append(s.Items, let)
	}
	s.Items = append(s.Items, Item{Title: "When " + from + " comes back", Commands: []string{"davit status      # with its kubeconfig"}, See: "It says Superseded: its applications are stopped there.", Otherwise: "Cut it off from its clients, and find out why its nodes do not fence (davit describe APPLICATION)."})
	return s
}
