package control

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/placement"
	"davit.dev/davit/internal/uplink"
)

func (h Host) placementsCommand() *cobra.Command {
	var project, site string
	cmd := &cobra.Command{
		Use:   "placements",
		Short: "How documents stand at the sites that they are for",
		Long: `Lists how the documents of a project stand at the sites that they are for: applied, waiting, conflict, refused or nowhere, and why. Ends with 4
when one is not applied.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return h.inProject(cmd, project, func(ctx context.Context, s *remote.Session) error {
				all, err := s.Placements(ctx, s.Project)
				if err != nil {
					return h.Explain(err)
				}
				none := "No document is for any site."
				if site != "" {
					none = "No document is for site " + site + "."
					all = slices.DeleteFunc(all, func(p placement.Standing) bool { return p.Site != site })
				}
				return h.placed(all, none)
			})
		},
	}
	projectFlag(cmd, &project)
	cmd.Flags().StringVar(&site, "site", "", "only at this site")
	return cmd
}

// placed prints placements, and says how the command ends.
func (h Host) placed(all []placement.Standing, none string) error {
	err := h.Print(list[placement.Standing]{
		items: all, kind: "placement", columns: output.Columns("KIND", "NAMESPACE", "NAME", "SITE", "STATE", "SAID", "WHY"), none: none,
		name: func(p placement.Standing) string { return strings.Trim(p.Kind+"/"+p.Name+"/"+p.Site, "/") },
		row: func(p placement.Standing) []string {
			state := p.State
			if p.Gone {
				state += ", to go"
			}
			return []string{p.Kind, p.Namespace, p.Name, p.Site, state, output.Ago(p.At, h.Now()), output.OneLine(p.Why)}
		},
	})
	if err == nil && slices.ContainsFunc(all, func(p placement.Standing) bool { return p.State != uplink.Applied }) {
		return exit.Quietly(exit.Warnings)
	}
	return err
}
