// Package profiles is the command line's `profiles`: what Davit knows of
// databases, for people.
package profiles

import (
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/profile"
)

// Command makes `profiles`; one checks that no more than one name is given.
func Command(one cobra.PositionalArgs, show func(output.Result) error) *cobra.Command {
	return &cobra.Command{
		Use:   "profiles [NAME]",
		Short: "What Davit knows of databases, and how it brings each to rest while it is cut",
		Long: `Lists the ready-made profiles, or shows one: what is done, why, and what proved it. A proven profile is chosen by image. The
annotation davit.dev/profile of a pod names another, or says none. Pods in which a hook of the application acts get no profile.`,
		Args: one,
		RunE: func(_ *cobra.Command, names []string) error {
			all := profile.All()
			if len(names) == 0 {
				return show(list(all))
			}
			for _, p := range all {
				if p.Name == names[0] {
					return show(detail(p))
				}
			}
			return exit.Usage("list them: davit profiles", "there is no profile %q", names[0])
		},
	}
}

// list is all profiles, a line each.
type list []profile.Profile

// Document is all of them.
func (l list) Document() any { return map[string]any{"profiles": []profile.Profile(l)} }

// Text is a table.
func (l list) Text(t *output.Text) {
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

// detail is one profile.
type detail profile.Profile

// Document is the profile.
func (d detail) Document() any { return profile.Profile(d) }

// Text shows it whole, so that it can be copied into a hook and changed.
func (d detail) Text(t *output.Text) {
	p := profile.Profile(d)
	t.Line("Profile %s", p.Name)
	t.Fields("  ", "for", p.Title, "images", strings.Join(p.Images, ", "), "but not", strings.Join(p.NotImages, ", "),
		"proven", strings.TrimSpace(proof(p)+" "+p.Proven), "does", rest(p), "why", p.Why)
	part := func(title string, command []string) {
		if len(command) > 0 {
			t.Section(title)
			for line := range strings.Lines(strings.Join(command, " ")) {
				t.Line("  %s", strings.TrimRight(line, "\n"))
			}
		}
	}
	part("Before", p.Before)
	if p.Hold != nil {
		part("Hold", p.Hold.Command)
	}
	part("After", p.After)
}
