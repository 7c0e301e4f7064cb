package recovery

import (
	"context"
	"errors"
	"fmt"

	"davit.dev/davit/internal/lease"
)

// ErrElsewhere says that this site does not hold the application: only the site
// that does can put itself under a lease.
var ErrElsewhere = errors.New("this site does not hold it")

// Arm claims the next epoch of an application for the site that holds it, under
// other lease terms; none where c.Terms is nil. One that is held under the
// same already is left as it is, and changed is false, unless a run brought it
// here: that a person armed it since is what its claim says. c.Number is not read.
func Arm(ctx context.Context, c Claiming) (epoch lease.Epoch, changed bool, err error) {
	current, err := lease.New(c.Project).Current(ctx, c.Application)
	if err != nil {
		return lease.Epoch{}, false, err
	}
	if current.Number == 0 || !c.Self.Made(current.Claim) {
		return current, false, fmt.Errorf("change the lease of %s: %w: %s has epoch %d", c.Application, ErrElsewhere, c.Self.Name(current.Claim), current.Number)
	}
	if was := current.Claim.Terms; was == nil && c.Terms == nil || was != nil && was.Equal(c.Terms) && current.Claim.Armed() {
		return current, false, nil
	}
	c.Number = current.Number + 1
	epoch, err = Claim(ctx, c)
	return epoch, err == nil, err
}
