package main

import (
	"context"
	"fmt"
	"time"
)

const (
	fewWorkers  = 32
	manyWorkers = 64 // as many objects as davit restores at a time, by default
)

// source is the application whose objects are restored, copied where they all exist.
func (b *bench) source() string { return b.named("source") }
func (b *bench) copied() string { return b.named("copy") }

func (b *bench) plain(namespace string, workers int) plain {
	return plain{kube: b.kube, namespace: namespace, objects: b.settings.objects, workers: workers, secrets: b.settings.secrets}
}

// prepare makes the application whose objects are restored, once.
func (b *bench) prepare(ctx context.Context) error {
	if b.prepared {
		return nil
	}
	err := b.known(ctx, b.plain(b.source(), manyWorkers))
	b.prepared = err == nil
	return err
}

// known makes an application with many small objects, and its first recovery point.
func (b *bench) known(ctx context.Context, app plain) error {
	b.report.say("creating %d objects", app.objects)
	if _, err := app.create(ctx); err != nil {
		return err
	}
	if err := b.protect(ctx, app.namespace); err != nil {
		return err
	}
	_, err := b.backup(ctx, app.namespace)
	return err
}

// toCapture is the application that is captured: the one that is restored, or one of another size.
func (b *bench) toCapture(ctx context.Context) (plain, error) {
	if b.captureObjects == 0 {
		return b.plain(b.source(), manyWorkers), b.prepare(ctx)
	}
	app := plain{kube: b.kube, namespace: b.named("captured"), objects: b.captureObjects, workers: manyWorkers}
	return app, b.known(ctx, app)
}

// atLeast is the part of a plain means' rate that davit has to reach.
const atLeast = 0.80

// captures takes turns with the plain means, forth and back, so that all meet the
// same caches. The bar is the slower of the two: whoever does both at once can be
// as fast as that.
func (b *bench) captures(ctx context.Context) error {
	app, err := b.toCapture(ctx)
	if err != nil {
		return err
	}
	memory, err := b.watch("agent")
	if err != nil {
		return err
	}
	side := func() *measured { return &measured{lap: lap{objects: app.objects}} }
	ours, zipped, lists, writes := side(), side(), side(), side()
	for round := range b.rounds {
		b.report.say("capture, round %d", round+1)
		turns := []func() error{
			zipped.turn(b, memory, func() (time.Duration, error) { return b.list(ctx, b.zipped, app.namespace) }),
			lists.turn(b, memory, func() (time.Duration, error) { return b.list(ctx, b.kube, app.namespace) }),
			writes.turn(b, memory, func() (time.Duration, error) { return b.write(ctx, app.namespace, fmt.Sprintf("plain-%d", round)) }),
			ours.turn(b, memory, func() (time.Duration, error) {
				r, err := b.backup(ctx, app.namespace)
				return r.took, err
			}),
		}
		if err := forthAndBack(round, turns); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("capture of %d objects: davit backup / ", app.objects)
	listed, written := float64(atLeast), float64(none)
	if writes.took > zipped.took { // the bar is the slower of the two
		listed, written = none, atLeast
	}
	b.report.rate(what+"paged list (500), as client-go asks for it", ours.lap, zipped.lap, listed)
	b.report.rate(what+"the same without compression", ours.lap, lists.lap, none)
	b.report.rate(what+"put of their JSON", ours.lap, writes.lap, written)
	b.report.spent("agent", ours, lists, func(s spent) time.Duration { return s.agent })
	b.report.spent("kube-apiserver and etcd", ours, lists, func(s spent) time.Duration { return s.server })
	b.report.spent("S3 server / put of their JSON", ours, writes, func(s spent) time.Duration { return s.vault })
	return b.report.peak("agent, capturing", memory, ceiling)
}

// forthAndBack takes the turns of a round in order, and those of the next one
// from the last to the first.
func forthAndBack(round int, turns []func() error) error {
	for i := range turns {
		if round%2 == 1 {
			i = len(turns) - 1 - i
		}
		if err := turns[i](); err != nil {
			return err
		}
	}
	return nil
}

// restores takes turns with plain loops, forth and back, always into an empty
// namespace.
func (b *bench) restores(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	ours, equal, many := lap{objects: b.settings.objects}, lap{objects: b.settings.objects}, lap{objects: b.settings.objects}
	peak := int64(0)
	create := func(into *lap, namespace string, workers int) func() error {
		return func() error {
			took, err := b.plain(namespace, workers).create(ctx)
			into.add(took)
			return err
		}
	}
	for round := range b.rounds {
		b.report.say("restore, round %d", round+1)
		namespace := func(kind string) string { return b.named(fmt.Sprintf("%s-%d", kind, round)) }
		turns := []func() error{
			create(&equal, namespace("equal"), fewWorkers),
			func() error {
				r, report, err := b.clone(ctx, b.source(), namespace("davit"))
				if err == nil && report.Result.Created < int64(b.settings.objects) {
					err = fmt.Errorf("only %d objects were created", report.Result.Created)
				}
				ours.add(r.took)
				peak = max(peak, r.peak)
				return err
			},
			create(&many, namespace("many"), manyWorkers),
		}
		if err := forthAndBack(round, turns); err != nil {
			return err
		}
	}
	b.report.rate(fmt.Sprintf("restore, empty namespace: davit restore / create loop of %d", fewWorkers), ours, equal, none)
	b.report.rate(fmt.Sprintf("restore, empty namespace: davit restore / create loop of %d", manyWorkers), ours, many, atLeast)
	b.report.bytes("davit restore, the command", peak, none)
	return nil
}

// existing restores a newer point over objects that are all there.
func (b *bench) existing(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.report.say("restore over existing objects")
	if _, _, err := b.clone(ctx, b.source(), b.copied()); err != nil {
		return err
	}
	for _, c := range []struct {
		title, flag string
		plain       func(context.Context) (time.Duration, error)
	}{
		{fmt.Sprintf("restore, all exist, skip: davit restore / get loop of %d", manyWorkers), "skip", b.plain(b.copied(), manyWorkers).get},
		{fmt.Sprintf("restore, all exist, update: davit restore / apply loop of %d", manyWorkers), "update", b.plain(b.copied(), manyWorkers).apply},
		{fmt.Sprintf("restore, all are as in the point, update: davit restore / get loop of %d", manyWorkers), "update", b.plain(b.copied(), manyWorkers).get},
	} {
		ours, theirs := &measured{lap: lap{objects: b.settings.objects}}, &measured{lap: lap{objects: b.settings.objects}}
		for range b.rounds {
			if err := b.over(ctx, c.flag, c.plain, ours, theirs); err != nil {
				return err
			}
		}
		b.report.rate(c.title, ours.lap, theirs.lap, atLeast)
		b.report.spent("kube-apiserver and etcd", ours, theirs, func(s spent) time.Duration { return s.server })
		b.report.spent("the command", ours, theirs, func(s spent) time.Duration { return s.command })
	}
	return nil
}

// over is a round over what exists. The loop comes first: what it applies is what
// davit finds to differ.
func (b *bench) over(ctx context.Context, existing string, plain func(context.Context) (time.Duration, error), ours, theirs *measured) error {
	if _, err := b.backup(ctx, b.source()); err != nil { // another point: the same one would be continued
		return err
	}
	if err := theirs.turn(b, 0, func() (time.Duration, error) { return plain(ctx) })(); err != nil {
		return err
	}
	return ours.turn(b, 0, func() (time.Duration, error) {
		r, report, err := b.clone(ctx, b.source(), b.copied(), "--existing", existing)
		if err == nil && report.Result.Created+report.Result.Continued > 10 {
			err = fmt.Errorf("existing objects were not met: %+v", report.Result)
		}
		ours.command += r.spent
		return r.took, err
	})()
}
