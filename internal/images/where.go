package images

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sync/errgroup"

	"davit.dev/davit/internal/point"
)

// Answer is what one place says of an image.
type Answer string

// The answers.
const (
	Present  Answer = "present"
	Absent   Answer = "absent"
	Denied   Answer = "denied"  // the registry does not let us look
	Unknown  Answer = "unknown" // no answer
	NotAsked Answer = ""
)

// Where says where an image can be had.
type Where struct {
	point.Image
	// Nodes is how many of the site's nodes say that they have the image.
	// Kubelets report only their fifty largest images unless told otherwise:
	// a node that does not say so may have it all the same.
	Nodes int
	// Registry is what the image's own registry says, asked from here.
	Registry Answer
	Mirror   Answer // what the mirror says; NotAsked without one
	Why      string // what an answer other than present means
}

// Safe tells whether the image can be had when the site that runs it is lost,
// as far as can be seen: every node has it, or a registry does.
func (w Where) Safe(nodes int) bool {
	return w.Registry == Present || w.Mirror == Present || nodes > 0 && w.Nodes >= nodes
}

// Look asks everyone for every image, some at a time. nodes holds, for each
// node, the names of the images it has (status.images[].names). mirror may be nil.
func Look(ctx context.Context, list []point.Image, nodes [][]string, own Registries, mirror *Mirror) []Where {
	answers := make([]Where, len(list))
	var g errgroup.Group
	g.SetLimit(8)
	for i, image := range list {
		g.Go(func() error {
			answers[i] = look(ctx, image, nodes, own, mirror)
			return nil
		})
	}
	_ = g.Wait() // answers hold what went wrong
	return answers
}

func look(ctx context.Context, image point.Image, nodes [][]string, own Registries, mirror *Mirror) Where {
	w := Where{Image: image}
	for _, names := range nodes {
		if onNode(image, names) {
			w.Nodes++
		}
	}
	var why []string
	note := func(err error) Answer {
		if err != nil {
			why = append(why, err.Error())
		}
		return answer(err)
	}
	var asked sync.WaitGroup
	var atMirror error
	if mirror != nil {
		asked.Go(func() { atMirror = mirror.Has(ctx, image) })
	}
	w.Registry = note(own.Has(ctx, image))
	asked.Wait()
	if mirror != nil {
		w.Mirror = note(atMirror)
	}
	w.Why = strings.Join(why, "; ")
	return w
}

func answer(err error) Answer {
	switch {
	case err == nil:
		return Present
	case errors.Is(err, ErrAbsent), errors.Is(err, ErrOther):
		return Absent
	case errors.Is(err, ErrDenied):
		return Denied
	}
	return Unknown
}

// onNode tells whether a node's names hold the image: its digest in any
// repository, or, where none is known, its name.
func onNode(image point.Image, names []string) bool {
	if image.Digest != "" {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "@"+image.Digest) })
	}
	want := full(image.Reference)
	return slices.ContainsFunc(names, func(n string) bool { return full(n) == want })
}

// full is a name with nothing left out, for comparing.
func full(reference string) string {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return reference
	}
	return ref.Name()
}
