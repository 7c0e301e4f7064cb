package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// slack is by how many places a version may be listed too late: stores list the marks
// of a page, which has up to a thousand, after its versions.
const slack = 2048

// errDisorder says that versions are listed in no order that could be relied on.
var errDisorder = errors.New("versions are listed out of order")

// errEnough ends a walk early.
var errEnough = errors.New("enough was seen")

// visit is what a walk does.
type visit struct {
	// each is called for every version, of one key the newest first; i counts them from
	// 0. A key of which the listing broke off is begun again with 0.
	each func(v Version, i int) error
	// end, if given, is called after the last version of a key.
	end func(key string) error
}

// walk visits all versions of the keys with a prefix, in the order of the keys, and
// remembers no more than some pages of them; where a store lists them out of order, all.
// A listing that the store breaks off goes on where it was.
func walk(ctx context.Context, keeper Keeper, prefix string, v visit) error {
	w := walker{visit: v}
	var stop error
	err := again(ctx, func() error {
		w.begin()
		stop = nil
		err := keeper.ListVersions(ctx, prefix, func(v Version) error {
			stop = w.take(v)
			return stop
		})
		if err == nil {
			stop = w.flush()
		}
		if stop != nil { // it is no fault of the store's
			return nil
		}
		return err
	})
	if errors.Is(stop, errDisorder) {
		err, stop = w.sorted(ctx, keeper, prefix), nil
	}
	if errors.Is(stop, errEnough) {
		return nil
	}
	return errors.Join(stop, err)
}

// listed is a version, and its place in the listing.
type listed struct {
	Version
	place int
}

func inOrder(a, b listed) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), newestFirst(a.Version, b.Version), cmp.Compare(a.place, b.place))
}

// walker puts versions in order.
type walker struct {
	visit
	held []listed
	all  bool // none is visited before the listing has ended
	n    int  // listed so far
	last listed
	i    int    // versions of last.Key that were visited; 0: none of any
	done string // the last key that was visited to its end; empty: none
}

// begin begins a listing.
func (w *walker) begin() { w.held, w.n, w.i = w.held[:0], 0, 0 }

func (w *walker) take(v Version) error {
	if v.Key <= w.done { // of a listing that broke off; else it is seen to be out of order
		if w.i > 0 {
			return errDisorder
		}
		return nil
	}
	w.n++
	w.held = append(w.held, listed{v, w.n})
	if w.all || len(w.held) < 2*slack {
		return nil
	}
	slices.SortFunc(w.held, inOrder)
	for _, l := range w.held[:slack] {
		if err := w.visitOne(l); err != nil {
			return err
		}
	}
	w.held = append(w.held[:0], w.held[slack:]...)
	return nil
}

// flush visits what is held, after the end of a listing.
func (w *walker) flush() error {
	slices.SortFunc(w.held, inOrder)
	for _, l := range w.held {
		if err := w.visitOne(l); err != nil {
			return err
		}
	}
	w.held = w.held[:0]
	return w.endKey()
}

func (w *walker) visitOne(l listed) error {
	if w.i > 0 && (l.Key < w.last.Key || l.Key == w.last.Key && newestFirst(l.Version, w.last.Version) < 0) {
		return errDisorder
	}
	if w.i > 0 && l.Key != w.last.Key {
		if err := w.endKey(); err != nil {
			return err
		}
	}
	w.last = l
	w.i++
	return w.each(l.Version, w.i-1)
}

// endKey ends the key that is visited.
func (w *walker) endKey() error {
	if w.i == 0 {
		return nil
	}
	w.i, w.done = 0, w.last.Key
	if w.end == nil {
		return nil
	}
	return w.end(w.last.Key)
}

// sorted visits all after it was listed to the end, once more what was visited before:
// a version of it may have been missed.
func (w *walker) sorted(ctx context.Context, keeper Keeper, prefix string) error {
	w.all, w.done = true, ""
	err := again(ctx, func() error {
		w.begin()
		return keeper.ListVersions(ctx, prefix, w.take)
	})
	if err != nil {
		return err
	}
	if err := w.flush(); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}
