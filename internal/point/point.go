// Package point is the arithmetic of recovery points: what one holds, how
// strong its promise is, which may be offered, which may expire, and what RPO
// and RTO were measured. It is pure: standard library only, time is an argument.
package point

import (
	"cmp"
	"time"
)

// Consistency is the promise a recovery point makes about its volumes, from
// strongest to weakest.
type Consistency string

// The promises, as in the design's rule 7.
const (
	Application Consistency = "application" // quiesced, then cut at one instant
	Crash       Consistency = "crash"       // all volumes cut at one instant
	PerVolume   Consistency = "per-volume"  // each volume at an instant of its own
	Fuzzy       Consistency = "fuzzy"       // read while being written: opt-in
)

// Manifest is the document whose appearance in the vault makes a recovery
// point visible. It is written last, once, and never changed. Facts learned
// later (verification, pins, deletion) are separate write-once marks.
type Manifest struct {
	FormatVersion int       `json:"formatVersion"` // 1
	ID            string    `json:"id"`            // also the RecoveryPoint object's name: see NewID
	Application   string    `json:"application"`   // vault-wide application name
	Project       string    `json:"project"`
	Site          string    `json:"site"`    // where it was captured
	Epoch         int64     `json:"epoch"`   // the epoch the capturing site held
	Trigger       string    `json:"trigger"` // "schedule" or "manual"
	StartedAt     time.Time `json:"startedAt"`
	// Instant is the recovery point's moment: everything the application made
	// durable before it is inside. It is taken just before the first cut.
	Instant     time.Time   `json:"instant"`
	CutBy       time.Time   `json:"cutBy"` // just after the last cut
	FinishedAt  time.Time   `json:"finishedAt"`
	Consistency Consistency `json:"consistency"`
	// Freeze says how the file systems were held still, where there was more
	// than one.
	Freeze *Freeze `json:"freeze,omitempty"`
	// Quiesce says whether hooks held the application at rest, where any was
	// there to do so.
	Quiesce      *Quiesce `json:"quiesce,omitempty"`
	KubeVersion  string   `json:"kubeVersion"`
	DavitVersion string   `json:"davitVersion"`
	// Namespaces are the namespaces captured, sorted.
	Namespaces []string `json:"namespaces"`
	// Scope is what the application was looked for in; nil in points written
	// before it was recorded.
	Scope *Scope `json:"scope,omitempty"`
	// Resources lists what was captured per kind, in the order of restore
	// groups decided by the restorer, not here.
	Resources []Resource `json:"resources"`
	Volumes   []Volume   `json:"volumes,omitempty"`
	Images    []Image    `json:"images,omitempty"`
	Warnings  []Warning  `json:"warnings,omitempty"`
	Hooks     []Hook     `json:"hooks,omitempty"`
	// Log is the capture's log, when there is one.
	Log *Pack `json:"log,omitempty"`
	// Objects and Bytes are totals: Kubernetes objects, and plain bytes of
	// objects and volumes together. StoredBytes is what the capture added to
	// the vault after compression and deduplication.
	Objects     int64 `json:"objects"`
	Bytes       int64 `json:"bytes"`
	StoredBytes int64 `json:"storedBytes"`
}

// Scope says where a capture looked, so that what is there later and not in
// the point can be told from what was never looked at.
type Scope struct {
	// Kinds were listed whole in every namespace, as Kind.group, sorted.
	Kinds []string `json:"kinds,omitempty"`
	// Selectors are label selectors, any of which takes an object; none takes all.
	Selectors []string `json:"selectors,omitempty"`
	// Narrowed says that something other than kinds and labels chose the
	// objects: what is outside cannot be told from here.
	Narrowed bool `json:"narrowed,omitempty"`
}

// Freeze says how the file systems of several volumes were held still while
// they were cut.
type Freeze struct {
	// Held says that all stood still without a break from before the first cut
	// until after the last: the volumes show one instant.
	Held bool `json:"held"`
	// Reason says why they did not.
	Reason string `json:"reason,omitempty"`
	// Window is the most that it could have taken, Frozen the longest that it
	// took on any node, by that node's clock. Both are nanoseconds.
	Window time.Duration `json:"window,omitempty"`
	Frozen time.Duration `json:"frozen,omitempty"`
	// Volumes that were cut, and Nodes that had any of them mounted.
	Volumes int `json:"volumes,omitempty"`
	Nodes   int `json:"nodes,omitempty"`
	// Flushed says that each of the volumes was mounted there, and so flushed. It is for
	// the capture alone.
	Flushed bool `json:"-"`
}

// Quiesce says how hooks held the pods of an application at rest while its
// volumes were cut.
type Quiesce struct {
	// Held says that every session of every hook that holds was proven to have
	// held from before the first cut until after the last.
	Held bool `json:"held"`
	// Reason says why not.
	Reason string `json:"reason,omitempty"`
	// Rested is the longest that any pod was held, in nanoseconds.
	Rested time.Duration `json:"rested,omitempty"`
	// Pods that were proven to have been held.
	Pods int `json:"pods,omitempty"`
}

// Resource is one kind's objects, in one or more packs.
type Resource struct {
	Group      string `json:"group"`
	Version    string `json:"version"` // the version the objects are written in
	Kind       string `json:"kind"`
	Resource   string `json:"resource"` // plural
	Namespaced bool   `json:"namespaced"`
	// Versions are all versions the source served for the kind, preferred
	// first, so that a target without Version can be told what is possible.
	Versions []string `json:"versions,omitempty"`
	// Dependency marks cluster-scoped objects that came along because the
	// application needs them, or is the whole cluster; restore creates them only where missing.
	Dependency bool   `json:"dependency,omitempty"`
	Count      int64  `json:"count"`
	Packs      []Pack `json:"packs"`
}

// Pack is one sealed blob that holds objects of one kind.
type Pack struct {
	Key    string `json:"key"`    // in the vault
	SHA256 string `json:"sha256"` // of the sealed bytes, hex
	Size   int64  `json:"size"`   // of the sealed bytes
	Count  int64  `json:"count"`  // objects inside
}

// Volume is the data of one PersistentVolumeClaim.
type Volume struct {
	Namespace    string      `json:"namespace"`
	Claim        string      `json:"claim"`
	StorageClass string      `json:"storageClass"`
	Driver       string      `json:"driver,omitempty"` // CSI driver, when there is one
	Method       string      `json:"method"`           // "csi-snapshot", "csi-group-snapshot" or "live-read"
	Capacity     int64       `json:"capacity"`         // bytes
	Consistency  Consistency `json:"consistency"`
	Instant      time.Time   `json:"instant"` // lower bound of the cut
	// Settled says that no file in it has older data than its time says, but those that are
	// marked to be read again: the next capture may take files over. Points of versions
	// that cut what was not flushed do not say so.
	Settled bool `json:"settled,omitempty"`
	// Snapshot names the tree in the site's volume repository.
	Snapshot Snapshot `json:"snapshot"`
}

// Snapshot is one file tree in a volume repository.
type Snapshot struct {
	Repository string `json:"repository"` // the site whose repository holds it
	ID         string `json:"id"`         // the repository's manifest id
	RootID     string `json:"rootID"`     // content address of the root directory
	Files      int64  `json:"files"`
	Dirs       int64  `json:"dirs"`
	Bytes      int64  `json:"bytes"`
	NewBytes   int64  `json:"newBytes"` // added to the repository by this snapshot
	Errors     int64  `json:"errors"`   // entries that could not be read; a point with any is not published
	// Inventories are keys of the SHA-256 inventories written with it.
	Inventories []string `json:"inventories,omitempty"`
	// Blocks says how the storage's word on what was changed was taken; nil: not at all.
	Blocks *Blocks `json:"blocks,omitempty"`
}

// Blocks says how the word of a volume's storage on its changed blocks was taken.
type Blocks struct {
	// Unread is how many bytes of changed files were not read, as the storage calls
	// them unchanged.
	Unread int64 `json:"unread"`
	// Base says that the storage can be asked what was changed since this snapshot: its cut is kept.
	Base bool `json:"base,omitempty"`
	// Compared is when all that the storage had called unchanged was last compared, or its word first
	// taken: what it is found to have called so wrongly may be in the points since.
	Compared time.Time `json:"compared,omitzero"`
	// Reason says why nothing, or not less, was left unread.
	Reason string `json:"reason,omitempty"`
	// Distrusted says what the storage called unchanged and was not, in this point
	// or an earlier one, and in which points that may be: its word is not taken any more.
	Distrusted string `json:"distrusted,omitempty"`
}

// Distrusting returns the snapshot such that nothing is taken over of it by its storage's word, for what that was
// found to have called unchanged and was not. What is known already stays.
func (s Snapshot) Distrusting(found string) Snapshot {
	var b Blocks
	if s.Blocks != nil {
		b = *s.Blocks
	}
	b.Distrusted = cmp.Or(b.Distrusted, found)
	s.Blocks = &b
	return s
}

// Image is one container image the application runs, by digest where known.
type Image struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest,omitempty"`
}

// Warning is something a person should know about one object.
type Warning struct {
	Object  string `json:"object,omitempty"` // kind.group namespace/name
	Message string `json:"message"`
}

// Hook is the outcome of one hook in one container.
type Hook struct {
	Name string `json:"name"`
	Pod  string `json:"pod"`  // namespace/name
	When string `json:"when"` // "before", "after", or "hold" for a session across the cut
	// Held says of a session that it was proven to have held.
	Held     bool          `json:"held,omitempty"`
	Duration time.Duration `json:"duration"` // of a session: from when it held until it was let go
	Error    string        `json:"error,omitempty"`
}
