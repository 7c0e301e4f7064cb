package point

import (
	"errors"
	"fmt"
	"slices"
)

// ErrInvalid says that a manifest contradicts itself or lacks what every
// recovery point has.
var ErrInvalid = errors.New("manifest not valid")

// consistencies, strongest first.
var consistencies = []Consistency{Application, Crash, PerVolume, Fuzzy}

// Weakest returns the weakest of the promises, for a point promises no more
// than its weakest part. Unknown promises count as fuzzy. Without any it
// returns Application: nothing was cut that could disagree.
func Weakest(promises ...Consistency) Consistency {
	weakest := 0
	for _, promise := range promises {
		rank := slices.Index(consistencies, promise)
		if rank < 0 {
			return Fuzzy
		}
		weakest = max(weakest, rank)
	}
	return consistencies[weakest]
}

// AtLeast tells whether promise c is as strong as the wanted one.
func (c Consistency) AtLeast(wanted Consistency) bool {
	return Weakest(c, wanted) == wanted || c == wanted
}

// Packs returns every sealed blob that the manifest names: all resources', and
// last the log's.
func (m *Manifest) Packs() []Pack {
	var packs []Pack
	for _, resource := range m.Resources {
		packs = append(packs, resource.Packs...)
	}
	if m.Log != nil {
		packs = append(packs, *m.Log)
	}
	return packs
}

// Check returns ErrInvalid, wrapped, when a manifest cannot be one of a whole
// recovery point: a volume with unread entries, for one, is no part of one.
func (m *Manifest) Check() error {
	checks := []func(*Manifest) error{checkHead, checkTimes, checkResources, checkPacks, checkVolumes}
	for _, check := range checks {
		if err := check(m); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

func checkHead(m *Manifest) error {
	switch {
	case m.FormatVersion < 1:
		return fmt.Errorf("format version %d", m.FormatVersion)
	case m.ID == "" || m.Application == "" || m.Project == "" || m.Site == "":
		return errors.New("id, application, project or site is missing")
	case m.Epoch < 0:
		return fmt.Errorf("epoch %d", m.Epoch)
	case !slices.Contains(consistencies, m.Consistency):
		return fmt.Errorf("consistency %q", m.Consistency)
	}
	return nil
}

func checkTimes(m *Manifest) error {
	if m.Instant.IsZero() {
		return errors.New("instant is missing")
	}
	if !m.CutBy.IsZero() && m.CutBy.Before(m.Instant) {
		return fmt.Errorf("cut at %s, before its instant %s", m.CutBy, m.Instant)
	}
	return nil
}

func checkResources(m *Manifest) error {
	for _, resource := range m.Resources {
		var count int64
		for _, pack := range resource.Packs {
			count += pack.Count
		}
		if count != resource.Count || resource.Resource == "" {
			return fmt.Errorf("resource %q: %d objects in packs, %d in all", resource.Resource, count, resource.Count)
		}
	}
	return nil
}

func checkPacks(m *Manifest) error {
	seen := map[string]bool{}
	for _, pack := range m.Packs() {
		if pack.Key == "" || seen[pack.Key] || pack.Size <= 0 || pack.Count < 0 || len(pack.SHA256) != 64 {
			return fmt.Errorf("pack %q: named twice, or without key, size, count or SHA-256", pack.Key)
		}
		seen[pack.Key] = true
	}
	return nil
}

func checkVolumes(m *Manifest) error {
	promises := []Consistency{m.Consistency}
	for _, volume := range m.Volumes {
		if volume.Snapshot.Errors != 0 {
			return fmt.Errorf("volume %s/%s: %d entries could not be read", volume.Namespace, volume.Claim, volume.Snapshot.Errors)
		}
		promises = append(promises, volume.Consistency)
	}
	if weakest := Weakest(promises...); weakest != m.Consistency {
		return fmt.Errorf("promises %s, but a volume is %s", m.Consistency, weakest)
	}
	return nil
}
