// Command bed-images builds the bed's workload images, all or those named, and prints one line each: reference and tar.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"davit.dev/davit/testbed/build"
	"davit.dev/davit/testbed/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bed-images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	cache, err := build.CacheDir()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = images.Names()
	}
	for _, name := range names {
		image, err := images.Build(ctx, cache, name, os.Stderr)
		if err != nil {
			return err
		}
		fmt.Println(image.Ref, image.Tar)
	}
	return nil
}
