package point

import "slices"

// Epoch is what quarantine needs to know of one epoch: its number, and the ids
// of the points that were visible and good when it was claimed.
type Epoch struct {
	Number   int64
	Accepted []string
}

// Quarantined returns the ids of the points, sorted, that were published under
// an epoch after it had been superseded. No clock takes part: a point of epoch
// e is sound if the first epoch above e accepted it, or if there is none.
// Points of an epoch above all that are known are sound: the caller's list of
// epochs is old. Read the epochs after the manifests.
func Quarantined(points []Point, epochs []Epoch) []string {
	sorted := slices.Clone(epochs)
	slices.SortFunc(sorted, func(a, b Epoch) int { return int(min(max(a.Number-b.Number, -1), 1)) })
	accepted := make([]map[string]bool, len(sorted))
	for i, epoch := range sorted {
		accepted[i] = make(map[string]bool, len(epoch.Accepted))
		for _, id := range epoch.Accepted {
			accepted[i][id] = true
		}
	}
	var ids []string
	for _, p := range points {
		next := slices.IndexFunc(sorted, func(e Epoch) bool { return e.Number > p.Epoch })
		if next >= 0 && !accepted[next][p.ID] {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Quarantine returns the points with Quarantined set where the epochs say so.
func Quarantine(points []Point, epochs []Epoch) []Point {
	bad := Quarantined(points, epochs)
	marked := slices.Clone(points)
	for i := range marked {
		if _, found := slices.BinarySearch(bad, marked[i].ID); found {
			marked[i].Quarantined = true
		}
	}
	return marked
}

// Accepted returns the ids, sorted, that the claim of a new epoch accepts: of
// the points visible now, those that are not quarantined or being deleted.
func Accepted(points []Point, epochs []Epoch) []string {
	var ids []string
	for _, p := range Quarantine(points, epochs) {
		if !p.Quarantined && !p.Deleting {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
