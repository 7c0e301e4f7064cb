package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VerifyPolicy says how often the newest recovery points are read back from
// the vault, and how much of them.
// +kubebuilder:validation:XValidation:rule="has(self.every) != has(self.cron)",message="give every or cron"
type VerifyPolicy struct {
	// Every is the pause between the end of one verification and the start of
	// the next, at least 1m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="every must be 1m or more"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Every *metav1.Duration `json:"every,omitempty"`
	// Cron is a five-field cron expression in UTC.
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`
	// Sample is how many percent of the volumes' data are read each time; 100,
	// the default, is all of it. Objects, directories and the presence of every
	// blob are always checked whole. Each run goes on where the one before it
	// ended, so that 100/sample runs read all that stays.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Sample *int32 `json:"sample,omitempty"`
	// Newest is how many of the newest points are read; default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Newest *int32 `json:"newest,omitempty"`
	// Blobs also compares every blob of the repositories that hold the points'
	// volumes, with those of other applications, with its SHA-256; of a sample,
	// as many. One application of a site is enough.
	// +optional
	Blobs bool `json:"blobs,omitempty"`
}

// How a recovery point was proven.
const (
	// ProvenFull says that every byte was read back.
	ProvenFull = "full"
	// ProvenSample says that all objects and directories and a part of the
	// volumes' data were read back.
	ProvenSample = "sample"
)

// VerificationStatus is what the scheduled verification did last.
type VerificationStatus struct {
	// At is when the last one ended that gave a verdict.
	// +optional
	At *metav1.Time `json:"at,omitempty"`
	// How is "full" or "sample".
	// +optional
	How string `json:"how,omitempty"`
	// Points are those that it read, newest first.
	// +optional
	Points []string `json:"points,omitempty"`
	// Damaged are those of them that it found damaged and that no second copy
	// could mend.
	// +optional
	Damaged []string `json:"damaged,omitempty"`
	// Repaired are those that it found damaged and mended from a second copy.
	// +optional
	Repaired []string `json:"repaired,omitempty"`
	// Bytes is how much was read back.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// Blobs is how many blobs of volume data were compared.
	// +optional
	Blobs int64 `json:"blobs,omitempty"`
	// DamagedBlobs are blobs that are not as they were written, and that no
	// second copy could mend. Until they are, each run compares all.
	// +optional
	// +listType=atomic
	DamagedBlobs []string `json:"damagedBlobs,omitempty"`
	// SampleFrom is where the next sample begins, in percent.
	// +optional
	SampleFrom int32 `json:"sampleFrom,omitempty"`
	// Next is when the next one is due.
	// +optional
	Next *metav1.Time `json:"next,omitempty"`
	// TriedAt and Error tell of a newer one that gave no verdict, as without an
	// answer of the vault. It is tried again.
	// +optional
	TriedAt *metav1.Time `json:"triedAt,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
	// Copies are the same of the vault's second copies: one of them is read
	// after each run, by turns.
	// +optional
	// +listType=map
	// +listMapKey=vault
	Copies []CopyVerification `json:"copies,omitempty"`
}

// CopyVerification is what the scheduled verification found in a second copy
// of the vault the last time that it was its turn.
type CopyVerification struct {
	// Vault names the copy.
	Vault string `json:"vault"`
	// At is when the last one ended that gave a verdict.
	// +optional
	At *metav1.Time `json:"at,omitempty"`
	// How is "full" or "sample".
	// +optional
	How string `json:"how,omitempty"`
	// Points are those that it read there, newest first.
	// +optional
	Points []string `json:"points,omitempty"`
	// Damaged are those that are damaged there and that the first vault could
	// not mend.
	// +optional
	Damaged []string `json:"damaged,omitempty"`
	// Repaired are those that it found damaged there and mended from the first
	// vault.
	// +optional
	Repaired []string `json:"repaired,omitempty"`
	// Bytes is how much was read back, Blobs how many blobs were compared.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`
	// +optional
	Blobs int64 `json:"blobs,omitempty"`
	// DamagedBlobs are blobs that are not as they were written, and that the
	// first vault could not mend.
	// +optional
	// +listType=atomic
	DamagedBlobs []string `json:"damagedBlobs,omitempty"`
	// SampleFrom is where the next sample begins, in percent.
	// +optional
	SampleFrom int32 `json:"sampleFrom,omitempty"`
	// TriedAt and Error tell of a newer one that gave no verdict. It is tried
	// again.
	// +optional
	TriedAt *metav1.Time `json:"triedAt,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
}

// RestoreTestPolicy says how often the newest recovery point is brought up as
// an isolated copy beside the application, asked whether it works, and removed.
// +kubebuilder:validation:XValidation:rule="has(self.every) != has(self.cron)",message="give every or cron"
type RestoreTestPolicy struct {
	// Every is the pause between the end of one test and the start of the
	// next, at least 1m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="every must be 1m or more"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	Every *metav1.Duration `json:"every,omitempty"`
	// Cron is a five-field cron expression in UTC.
	// +optional
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`
	// Newest is how many of the newest points are tested each time, one after
	// the other; default 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Newest *int32 `json:"newest,omitempty"`
	// Timeout bounds the test of one point, its removal not included; default 30m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="timeout must be 10s or more"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// ReadyTimeout bounds the wait for the workloads; default 10m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="readyTimeout must be more than nothing"
	ReadyTimeout *metav1.Duration `json:"readyTimeout,omitempty"`
	// StorageClassMapping gives claims of the copy another storage class.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	StorageClassMapping map[string]string `json:"storageClassMapping,omitempty"`
	// ExcludeKinds leaves these out of the copy, besides what reaches out of it
	// by its nature: resource.group, "*" allowed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	ExcludeKinds []string `json:"excludeKinds,omitempty"`
	// Probes ask the copy whether it works, once its workloads are ready, in
	// this order. Without any, ready workloads are the proof, unless some were
	// left out of the copy.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Probes []RestoreProbe `json:"probes,omitempty"`
}

// RestoreProbe is one question to a restored copy. It is asked again every
// two seconds until the answer is as expected or the time is over.
// +kubebuilder:validation:XValidation:rule="[has(self.exec), has(self.http), has(self.sql), has(self.job)].filter(x, x).size() == 1",message="give one of exec, http, sql and job"
type RestoreProbe struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Namespace is the captured one that the probe is about; default the first.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// Timeout bounds the probe, all its tries together; default 1m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="timeout must be more than nothing"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Expect is a regular expression that the answer must match: a command's
	// output, a response's body, a query's rows.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Expect string `json:"expect,omitempty"`
	// Exec runs a command in a container; it must end with code 0.
	// +optional
	Exec *ExecProbe `json:"exec,omitempty"`
	// HTTP asks a Service.
	// +optional
	HTTP *HTTPProbe `json:"http,omitempty"`
	// SQL runs a query by the client in the database's own container.
	// +optional
	SQL *SQLProbe `json:"sql,omitempty"`
	// Job runs a pod in the copy's namespace; it must end with code 0.
	// +optional
	Job *JobProbe `json:"job,omitempty"`
}

// PodChoice finds a pod of the copy: the first that runs.
type PodChoice struct {
	// Pods chooses by label.
	Pods metav1.LabelSelector `json:"pods"`
	// Container defaults to the pod's first.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
}

// ExecProbe runs a command.
type ExecProbe struct {
	PodChoice `json:",inline"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Command []string `json:"command"`
}

// HTTPProbe asks a Service, through the API server.
type HTTPProbe struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Service string `json:"service"`
	// Port is a number or a name of the Service's; default its only one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Port string `json:"port,omitempty"`
	// Path begins with a slash; default "/". It has no "..", and no encoded dot,
	// slash or percent sign before its query.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/`
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[^?]*(/[.][.](/|[?]|$)|%2[eEfF]|%25)')",message="no .. in the path, and none of %2e, %2f and %25"
	Path string `json:"path,omitempty"`
	// Scheme is http or https; default http. Certificates are not checked.
	// +optional
	// +kubebuilder:validation:Enum=http;https
	Scheme string `json:"scheme,omitempty"`
	// Status is the expected one; without it any from 200 to 399.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=599
	Status int32 `json:"status,omitempty"`
}

// SQLProbe runs a query by psql or mysql in the database's container, as the
// local user that the container runs as, unless User says another.
type SQLProbe struct {
	PodChoice `json:",inline"`
	// Client is psql, mysql or mariadb.
	// +kubebuilder:validation:Enum=psql;mysql;mariadb
	Client string `json:"client"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query"`
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^-]`
	Database string `json:"database,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^-]`
	User string `json:"user,omitempty"`
}

// JobProbe runs a pod to its end.
type JobProbe struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image"`
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Command []string `json:"command,omitempty"`
	// ServiceAccountName is one of the copy's; default "default".
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// ProvenBoot says that the point was restored, came up, and passed its probes.
const ProvenBoot = "boot"

// RestoreTestStatus is what the scheduled restore test did last.
type RestoreTestStatus struct {
	// At is when the last one ended that gave a verdict.
	// +optional
	At *metav1.Time `json:"at,omitempty"`
	// Point is what it restored; of several, the first that failed.
	// +optional
	Point string `json:"point,omitempty"`
	// Passed says that it came up and answered as expected.
	// +optional
	Passed bool `json:"passed,omitempty"`
	// RTO is how long it took from the start until all workloads were ready
	// and all probes had passed.
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
	// Message says what failed.
	// +optional
	Message string `json:"message,omitempty"`
	// Unproven says why it proved nothing, neither that the point is good nor
	// that it is not.
	// +optional
	Unproven string `json:"unproven,omitempty"`
	// Probes are the probes' results.
	// +optional
	// +listType=atomic
	Probes []ProbeStatus `json:"probes,omitempty"`
	// Warnings are what the copy was made without, and what it may reach.
	// +optional
	// +listType=atomic
	Warnings []string `json:"warnings,omitempty"`
	// Leftovers are what could not be removed; the agent tries again.
	// +optional
	// +listType=atomic
	Leftovers []string `json:"leftovers,omitempty"`
	// Running is since when a test runs; Namespaces are the copy's.
	// +optional
	Running *metav1.Time `json:"running,omitempty"`
	// +optional
	// +listType=atomic
	Namespaces []string `json:"namespaces,omitempty"`
	// Next is when the next one is due.
	// +optional
	Next *metav1.Time `json:"next,omitempty"`
	// TriedAt and Error tell of a newer one that gave no verdict. It is tried
	// again, after longer and longer pauses.
	// +optional
	TriedAt *metav1.Time `json:"triedAt,omitempty"`
	// +optional
	Error string `json:"error,omitempty"`
	// Tries is how many in a row gave none.
	// +optional
	Tries int32 `json:"tries,omitempty"`
}

// ProbeStatus is one probe's result.
type ProbeStatus struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Took is until it passed, or until it was given up.
	// +optional
	Took *metav1.Duration `json:"took,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// PointTest is the newest restore test of a recovery point.
type PointTest struct {
	At     metav1.Time `json:"at"`
	Passed bool        `json:"passed"`
	// RTO is how long it took until the copy worked.
	// +optional
	RTO *metav1.Duration `json:"rto,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}
