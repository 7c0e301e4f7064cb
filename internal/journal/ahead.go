package journal

import (
	"context"
	"sync"
)

// abreast is how many records are fetched at once. The journal of a run of hundreds of applications has
// thousands, and whoever takes it over has read them all before he goes on.
const abreast = 16

// few are so many records that they are read in time one after the other.
const few = 4 * abreast

// fetched is a record, or why there is none.
type fetched struct {
	data []byte
	err  error
}

// ahead fetches records ahead of whoever reads them, which he does in order and each once. stop ends
// it, and waits.
func ahead(ctx context.Context, log Log, run string, numbers []int64) (next func() ([]byte, error), stop func()) {
	if len(numbers) <= few {
		return func() ([]byte, error) {
			n := numbers[0]
			numbers = numbers[1:]
			return log.ReadRun(ctx, run, n)
		}, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var fetching sync.WaitGroup
	under := make(chan chan fetched, abreast-1) // and one that waits to be put there
	fetching.Go(func() {
		defer close(under)
		for _, n := range numbers {
			answer := make(chan fetched, 1)
			fetching.Go(func() {
				data, err := log.ReadRun(ctx, run, n)
				answer <- fetched{data, err}
			})
			select {
			case under <- answer:
			case <-ctx.Done():
				return
			}
		}
	})
	next = func() ([]byte, error) {
		answer, ok := <-under
		if !ok {
			return nil, context.Cause(ctx)
		}
		got := <-answer
		return got.data, got.err
	}
	return next, func() {
		cancel()
		fetching.Wait()
	}
}
