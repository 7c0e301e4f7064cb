package sequence

import "davit.dev/davit/internal/restore/shape"

// Step is the rank whose step in a report a gate is part of.
func (p Point) Step() (shape.Rank, bool) {
	switch p.Hub {
	case Namespace:
		return shape.RankNamespaces, true
	case Definitions:
		return shape.RankDefinitions, true
	case Made:
		return shape.RankWorkloads, true
	}
	return 0, false
}

// Steps are how many objects and gates the step of each rank has, by name.
func (s *Sequence) Steps() map[string]int {
	sizes := map[string]int{}
	for _, en := range s.Entries {
		sizes[shape.RankOf(s.KindOf(en)).String()]++
	}
	for _, p := range s.Points {
		if rank, timed := p.Step(); timed {
			sizes[rank.String()]++
		}
	}
	return sizes
}
