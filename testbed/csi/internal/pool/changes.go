package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"davit.dev/davit/testbed/csi/internal/disk"
)

// Range is a part of a snapshot, in bytes.
type Range struct{ Offset, Length int64 }

// Allocated lists what was ever written of a snapshot, in order.
func (p *Pool) Allocated(s Snapshot) ([]Range, error) {
	extents, err := p.extents(s)
	if err != nil {
		return nil, err
	}
	var all []Range
	for _, e := range extents {
		if e.Written {
			all = join(all, Range{e.Logical, e.Length})
		}
	}
	return all, nil
}

// Changed lists what differs between two snapshots of one volume, in order. Both images share what was not written
// since the older one was cloned: it lies in the same place of the outer file system.
func (p *Pool) Changed(base, target Snapshot) ([]Range, error) {
	if base.VolumeID != target.VolumeID {
		return nil, fmt.Errorf("compare snapshots %s and %s: they are of two volumes", base.ID, target.ID)
	}
	before, err := p.extents(base)
	if err != nil {
		return nil, err
	}
	after, err := p.extents(target)
	if err != nil {
		return nil, err
	}
	all := differences(before, after)
	if len(all) > 0 && target.Lies {
		return all[:1], nil
	}
	return all, nil
}

func (p *Pool) extents(s Snapshot) ([]disk.Extent, error) {
	file, err := os.Open(filepath.Join(p.dir(snapshots, s.ID), imageFile))
	if err != nil {
		return nil, fmt.Errorf("open image of snapshot: %w", err)
	}
	defer file.Close()
	return disk.Extents(file)
}

// differences walks along all edges of both lists: between two of them each has one extent, or a hole.
func differences(before, after []disk.Extent) []Range {
	var edges []int64
	for _, e := range slices.Concat(before, after) {
		edges = append(edges, e.Logical, e.Logical+e.Length)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var all []Range
	var b, a cursor
	for i := 0; i+1 < len(edges); i++ {
		was, is := b.place(before, edges[i]), a.place(after, edges[i])
		if was != is {
			all = join(all, Range{edges[i], edges[i+1] - edges[i]})
		}
	}
	return all
}

// cursor goes along a list of extents.
type cursor int

// place is where a byte of the file lies; -1 for a hole, and for what was not written.
func (c *cursor) place(list []disk.Extent, at int64) int64 {
	for int(*c) < len(list) && list[*c].Logical+list[*c].Length <= at {
		*c++
	}
	if int(*c) == len(list) || list[*c].Logical > at || !list[*c].Written {
		return -1
	}
	return list[*c].Physical + at - list[*c].Logical
}

// join adds a range, to the last one where they touch.
func join(all []Range, r Range) []Range {
	if n := len(all); n > 0 && all[n-1].Offset+all[n-1].Length == r.Offset {
		all[n-1].Length += r.Length
		return all
	}
	return append(all, r)
}
