package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/profile"
)

func (e *env) profilesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "profiles [NAME]",
		Short: "What Davit knows of databases, and how it brings each to rest while it is cut",
		Long: `Lists the ready-made profiles, or shows one: what is done, why, and what proved it. A proven profile is chosen by image. The
annotation davit.dev/profile of a pod names another, or says none. Pods in which a hook of the application acts get no profile.`,
		Args: args(cobra.MaximumNArgs(1), "give one profile's name, or none"),
		RunE: func(_ *cobra.Command, names []string) error {
			all := profile.All()
			if len(names) == 0 {
				return e.print(profileList(all))
			}
			for _, p := range all {
				if p.Name == names[0] {
					return e.print(profileDetail(p))
				}
			}
			return exit.Usage("list them: davit profiles", "there is no profile %q", names[0])
		},
	}
}

// profileList is all profiles, a line each.
type profileList []profile.Profile

// Document is all of them.
func (l profileList) Document() any { return map[string]any{"profiles": []profile.Profile(l)} }

// Text is a table.
func (l profileList) Text(t *output.Text) {
	var rows [][]string
	for _, p := range l {
		rows = append(rows, []string{p.Name, proof(p), rest(p), strings.Join(p.Images, ", ")})
	}
	t.Table("", output.Columns("NAME", "PROVEN", "WHAT IT DOES", "IMAGES"), rows)
}

func proof(p profile.Profile) string {
	if p.Proven == "" {
		return "no: by annotation only"
	}
	return "yes"
}

func rest(p profile.Profile) string {
	switch {
	case p.Hold != nil:
		return "holds it at rest"
	case p.Acts():
		return "flushes it"
	}
	return "nothing, as nothing is needed"
}

// profileDetail is one profile.
type profileDetail profile.Profile

// Document is the profile.
func (d profileDetail) Document() any { return profile.Profile(d) }

// Text shows it whole, so that it can be copied into a hook and changed.
func (d profileDetail) Text(t *output.Text) {
	p := profile.Profile(d)
	t.Line("Profile %s", p.Name)
	t.Fields("  ", "for", p.Title, "images", strings.Join(p.Images, ", "), "but not", strings.Join(p.NotImages, ", "),
		"proven", strings.TrimSpace(proof(p)+" "+p.Proven), "does", rest(p), "why", p.Why)
	show := func(title string, command []string) {
		if len(command) > 0 {
			t.Section(title)
			for line := range strings.Lines(strings.Join(command, " ")) {
				t.Line("  %s", strings.TrimRight(line, "\n"))
			}
		}
	}
	show("Before", p.Before)
	if p.Hold != nil {
		show("Hold", p.Hold.Command)
	}
	show("After", p.After)
}
