package protection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/volume"
	"davit.dev/davit/internal/volume/suspect"
)

// maxDamage bounds the damages that a mark tells in full.
const maxDamage = 20

// VerifyProgress is how far a verification has come.
type VerifyProgress struct {
	Packs, PacksTotal     int64
	Volumes, VolumesTotal int64
	Bytes                 int64 // read back so far, objects and volumes
}

// VerifyOptions say how much is read, and who is told.
type VerifyOptions struct {
	// Sample, from 1 to 99, reads only so many percent of the volumes' data,
	// those from SampleFrom percent on. Zero and 100 read all.
	Sample, SampleFrom int
	// Blobs also compares every blob of the repositories that the point's
	// volumes are in, other points' too, with its SHA-256; of a sample, as many.
	Blobs bool
	// AllBlobs compares all of them, of a sample too.
	AllBlobs bool
	// NotOf are sites whose repositories were compared already.
	NotOf    []string
	Progress func(VerifyProgress)
}

// how is what the mark says of it.
func (o VerifyOptions) how() string {
	if o.Sample > 0 && o.Sample < 100 {
		return vault.HowSample
	}
	return vault.HowFull
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	ID      string
	How     string // vault.HowFull or vault.HowSample
	Objects int64
	Volumes int64
	Bytes   int64    // read back
	Damage  []string // what is wrong; empty: nothing
	// Packs are the damaged packs of volume data, by the site whose repository
	// they are in.
	Packs map[string][]string

	// Sites are those whose repositories were compared blob by blob, Blobs how
	// many there were, BlobBytes what was read of them.
	Sites            []string
	Blobs, BlobBytes int64
	// BlobDamage is what is wrong with blobs. The point itself may be whole.
	BlobDamage []string
}

// Verify reads a recovery point back, objects and volumes, and writes what it
// learned into the vault: a verified mark that says how, or for a damaged point
// a quarantine mark that says what is wrong. ErrDamaged says that something is.
// A vault that gives no answer is an error and no verdict, and so is a point
// that is deleted meanwhile: that is vault.ErrNotFound.
func (p *Protector) Verify(ctx context.Context, app, id string, opts VerifyOptions) (VerifyReport, error) {
	report := VerifyReport{ID: id, How: opts.how()}
	m, err := p.opts.Project.Manifest(ctx, app, id)
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return report, fmt.Errorf("verify %s: %w", id, err)
	}
	v := &verifier{p: p, m: m, report: &report, opts: opts}
	if err != nil {
		v.damaged(err)
	} else if err := v.run(ctx); err != nil {
		return report, fmt.Errorf("verify %s: %w", id, err)
	}
	if len(report.Damage) > 0 {
		if err := p.stays(ctx, app, id); err != nil {
			return report, fmt.Errorf("verify %s: %w", id, err)
		}
	}
	if err := p.markVerified(ctx, app, report); err != nil {
		return report, fmt.Errorf("verify %s: %w", id, err)
	}
	if len(report.Damage) > 0 {
		return report, fmt.Errorf("verify %s: %w: %s", id, ErrDamaged, strings.Join(report.Damage, "; "))
	}
	return report, nil
}

// stays is vault.ErrNotFound for a point that is gone or on its way out: what
// is missing of that one is no damage, and a mark would outlive it.
func (p *Protector) stays(ctx context.Context, app, id string) error {
	marks, err := p.opts.Project.Marks(ctx, app, id)
	if err != nil && !errors.Is(err, vault.ErrDamaged) {
		return err
	}
	gone := vault.PointInfo{Marks: marks}.Deleting()
	if _, err := p.opts.Project.Manifest(ctx, app, id); errors.Is(err, vault.ErrNotFound) {
		gone = true
	}
	if gone {
		return fmt.Errorf("%w: it was deleted meanwhile", vault.ErrNotFound)
	}
	return nil
}

func (p *Protector) markVerified(ctx context.Context, app string, r VerifyReport) error {
	if p.opts.Project.IsCopy() {
		return nil // nothing is written there: whoever asked is told
	}
	mark := vault.Mark{Kind: vault.MarkVerified, At: p.now().UTC(), Site: p.opts.Site, By: vault.ByVerification, How: r.How, Note: r.note()}
	if len(r.Damage) > 0 {
		mark.Kind = vault.MarkQuarantined
		mark.Note = "damaged: " + strings.Join(r.Damage, "; ")
	}
	for repository, packs := range r.Packs { // so that the next capture stores anew what is in them
		if err := suspect.Note(ctx, p.opts.Project.Store(), p.opts.Project.VolumePrefix(repository), packs); err != nil {
			p.log.Warn("damaged packs are not noted: new points of these volumes may refer to them", "point", r.ID, "error", err) // the verdict, and with it a repair, does not wait for that
		}
	}
	return p.opts.Project.Mark(ctx, app, r.ID, mark)
}

// pack remembers a damaged pack.
func (r *VerifyReport) pack(site, id string) {
	if id == "" || slices.Contains(r.Packs[site], id) {
		return
	}
	if r.Packs == nil {
		r.Packs = map[string][]string{}
	}
	r.Packs[site] = append(r.Packs[site], id)
}

func (r VerifyReport) note() string {
	if r.How == vault.HowSample {
		return fmt.Sprintf("read back %d objects, all directories and a sample of the data of %d volumes, %d bytes", r.Objects, r.Volumes, r.Bytes)
	}
	return fmt.Sprintf("read back %d objects, %d volumes, %d bytes", r.Objects, r.Volumes, r.Bytes)
}

// verifier is one verification.
type verifier struct {
	p      *Protector
	m      *point.Manifest
	report *VerifyReport
	opts   VerifyOptions
	at     VerifyProgress
}

func (v *verifier) run(ctx context.Context) error {
	v.at.PacksTotal, v.at.VolumesTotal = int64(len(v.m.Packs())), int64(len(v.m.Volumes))
	v.report.Objects, v.report.Volumes = v.m.Objects, v.at.VolumesTotal
	if err := v.objects(ctx); err != nil {
		return err
	}
	for site, volumes := range bySite(v.m) {
		if err := v.volumes(ctx, site, volumes); err != nil {
			return err
		}
	}
	return nil
}

// objects reads every pack. What is no damage is an error.
func (v *verifier) objects(ctx context.Context) error {
	var unknown []error
	err := v.p.opts.Project.VerifyObjects(ctx, v.m, func(f vault.Finding) {
		v.at.Packs++
		v.at.Bytes += f.Size
		v.report.Bytes += f.Size
		v.progress()
		if f.Err == nil {
			return
		}
		if isDamage(f.Err) {
			v.damaged(f.Err)
			return
		}
		unknown = append(unknown, f.Err)
	})
	if err != nil && len(unknown) == 0 && len(v.report.Damage) == 0 { // a mark, not a pack
		if !isDamage(err) {
			return err
		}
		v.damaged(err)
	}
	return errors.Join(unknown...)
}

func isDamage(err error) bool {
	for _, damage := range []error{vault.ErrDamaged, vault.ErrNotFound, volume.ErrDamaged, volume.ErrNoSnapshot, volume.ErrNoRepository} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}

// volumes reads every volume that lies in one site's repository.
func (v *verifier) volumes(ctx context.Context, site string, volumes []point.Volume) error {
	err := v.p.withVolumes(ctx, site, true, func(repo Repository) error {
		for _, vol := range volumes {
			if err := v.volume(ctx, site, repo, vol); err != nil {
				return err
			}
		}
		return v.blobs(ctx, site, repo, volumes)
	})
	if err != nil && isDamage(err) {
		v.damaged(err)
		return nil
	}
	return err
}

func (v *verifier) volume(ctx context.Context, site string, repo Repository, vol point.Volume) error {
	base := v.at.Bytes
	got, err := repo.Verify(ctx, vol.Snapshot, v.reading(base))
	if err != nil {
		err = fmt.Errorf("volume %s/%s: %w", vol.Namespace, vol.Claim, err)
		if isDamage(err) {
			v.damaged(err)
			return nil
		}
		return err
	}
	if got.Lists != nil {
		v.listsDamaged(site, got.Lists)
	}
	for _, d := range got.Damaged {
		v.damaged(fmt.Errorf("volume %s/%s: %s %s: %w", vol.Namespace, vol.Claim, d.Path, d.Blob, d.Err))
		v.report.pack(site, d.Blob)
	}
	read := got.Bytes
	if v.report.How == vault.HowSample {
		read = got.Read
	}
	v.at.Volumes++
	v.at.Bytes = base + read
	v.report.Bytes += read
	v.progress()
	return nil
}

// reading is how a repository is read, and how its progress adds to what was
// read before.
func (v *verifier) reading(base int64) volume.VerifyOptions {
	return volume.VerifyOptions{ReadAll: true, Sample: v.opts.Sample, SampleFrom: v.opts.SampleFrom, Progress: func(at volume.Progress) {
		v.at.Bytes = base + at.Bytes
		v.progress()
	}}
}

func (v *verifier) damaged(err error) { v.report.Damage = noted(v.report.Damage, err.Error()) }

// noted adds to what is told in full, up to a limit.
func noted(all []string, text string) []string {
	switch n := len(all); {
	case n < maxDamage:
		return append(all, text)
	case n == maxDamage:
		return append(all, "and more")
	}
	return all
}

func (v *verifier) progress() {
	if v.opts.Progress != nil {
		v.opts.Progress(v.at)
	}
}
