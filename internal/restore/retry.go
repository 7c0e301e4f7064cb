package restore

import "errors"

// ErrBusy says that another restore of the application runs at the target.
var ErrBusy = errors.New("another restore of this application runs here")

type retrying struct {
	Cluster
	clock Clock
}

type state struct{}

func newState() *state { return &state{} }
