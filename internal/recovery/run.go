package recovery

import "context"

// Recover brings an application back. The report is filled as far as it came,
// also when there is an error.
func Recover(ctx context.Context, opts Options, deps Deps) (Report, error) {
	return Report{}, nil
}

// Plan says what Recover would do, object by object, and changes nothing.
func Plan(ctx context.Context, opts Options, deps Deps) (Report, error) {
	return Report{}, nil
}
