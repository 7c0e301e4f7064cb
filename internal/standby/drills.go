package standby

import (
	"context"
	"errors"
	"slices"

	"davit.dev/davit/internal/drill"
)

var errNoDrills = errors.New("this davit drills at no site")

// Drills names the drills whose sandboxes are here.
func (s *Site) Drills(ctx context.Context) ([]string, error) {
	if s.o.Drills == nil {
		return nil, errNoDrills
	}
	all, err := s.o.Drills.Sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	var runs []string
	for _, n := range all {
		if !slices.Contains(runs, n.Run) {
			runs = append(runs, n.Run)
		}
	}
	return runs, nil
}

// CleanDrill removes what a drill that is over left here.
func (s *Site) CleanDrill(ctx context.Context, run string) error {
	if s.o.Drills == nil {
		return errNoDrills
	}
	_, err := drill.Clean(ctx, s.o.Recovery.Cluster, s.o.Drills, run)
	return err
}
