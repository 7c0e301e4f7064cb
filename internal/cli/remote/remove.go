package remote

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/console/client"
)

type removal struct {
	files              []string
	project, namespace string
	dryRun, gone       bool
}

func deleteCommand(h Host) *cobra.Command {
	var o removal
	cmd := &cobra.Command{
		Use:   "delete (KIND NAME... | KIND/NAME... | -f FILE)",
		Short: "Delete documents at a console",
		Long: `Deletes documents at a console. Agents take them away at the sites as well, where the console made them. Recovery points stay. All of them have to be there, or nothing is deleted,
unless --ignore-not-found is given. From files, a document with metadata.resourceVersion is deleted only if nobody has changed it since.`,
		Example: `  davit delete policy hourly
  davit delete -f policies/ --dry-run`,
		RunE: func(cmd *cobra.Command, given []string) error {
			ctx, cancel := h.Working(cmd)
			defer cancel()
			all, err := h.doomed(o, given)
			if err != nil {
				return err
			}
			s, err := h.working(o.project)
			if err != nil {
				return err
			}
			defer s.Close()
			return h.delete(ctx, s, all, o)
		},
		ValidArgs: kindNames(),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "file, directory or - (standard input) whose documents are deleted; may be given again")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted")
	flags.BoolVar(&o.gone, "ignore-not-found", false, "pass over what is not there")
	projectFlag(flags, &o.project)
	namespaceFlag(flags, &o.namespace)
	return cmd
}

// doomed reads what is to be deleted.
func (h Host) doomed(o removal, words []string) ([]given, error) {
	if (len(o.files) == 0) == (len(words) == 0) {
		return nil, exit.Usage("such as `delete policy hourly`, or `delete -f FILE`", "name documents, or files with -f")
	}
	if len(o.files) > 0 {
		return h.read(o.files)
	}
	named, err := targets(words, o.namespace)
	if err != nil {
		return nil, err
	}
	var all []given
	for _, t := range named {
		if t.name == "" {
			return nil, exit.Usage("`get "+words[0]+"` lists them", "the name is missing")
		}
		all = append(all, given{target: t, from: "command line"})
	}
	return all, nil
}

// delete looks whether all is as expected, and then deletes.
func (h Host) delete(ctx context.Context, s *session, all []given, o removal) error {
	var found []change
	for _, g := range all {
		old, err := s.Get(ctx, g.ref(s.Project))
		if client.Is(err, http.StatusNotFound) && o.gone {
			continue
		}
		if err != nil {
			return h.explain(err)
		}
		c := change{given: g, old: old, there: true}
		if stale := c.stale(); stale != nil {
			return h.explain(stale)
		}
		found = append(found, c)
	}
	done := Done{DryRun: o.dryRun}
	for i, c := range found {
		item := Item{target: c.target, Action: deleted, ResourceVersion: c.old.Metadata.ResourceVersion}
		if !o.dryRun {
			gone, err := s.Delete(ctx, c.ref(s.Project), c.revision)
			if client.Is(err, http.StatusNotFound) && o.gone {
				continue
			}
			if err != nil {
				return h.halfway(done, len(found)-i, c.target, err)
			}
			item.ResourceVersion = gone.Metadata.ResourceVersion
		}
		done.add(item)
	}
	return h.Print(done)
}
