package agents

import (
	"slices"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/uplink"
)

// heard is what a site's agent says of objects, in the order in which pages show it: that
// is kept, for a page that sorted what all agents say would take seconds for thousands.
type heard struct {
	all []fleet.Heard
	// lent says that somebody reads all: it is changed no more, another takes its place.
	lent bool
}

func (h *heard) find(k uplink.Key) (int, bool) {
	return slices.BinarySearchFunc(h.all, k, func(o fleet.Heard, k uplink.Key) int { return fleet.Order(o.Key, k) })
}

func (h *heard) of(k uplink.Key) (o fleet.Heard, there bool) {
	i, there := h.find(k)
	if there {
		o = h.all[i]
	}
	return o, there
}

// own has all be changed by nobody but its keeper.
func (h *heard) own() {
	if h.lent {
		h.all, h.lent = slices.Clone(h.all), false
	}
}

func (h *heard) put(o fleet.Heard) {
	h.own()
	if i, there := h.find(o.Key); there {
		h.all[i] = o
	} else {
		h.all = slices.Insert(h.all, i, o)
	}
}

func (h *heard) drop(k uplink.Key) {
	if i, there := h.find(k); there {
		h.own()
		h.all = slices.Delete(h.all, i, i+1)
	}
}

// replace takes all that there is now, in any order.
func (h *heard) replace(all []fleet.Heard) {
	slices.SortFunc(all, func(a, b fleet.Heard) int { return fleet.Order(a.Key, b.Key) })
	h.all, h.lent = all, false
}

// lend returns all, for others to read.
func (h *heard) lend() []fleet.Heard {
	h.lent = true
	return h.all
}
