package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"davit.dev/davit/internal/vault"
)

// translate gives an error the Store's meaning and, where a person can mend
// it, says how. Nil stays nil.
func (s *Store) translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", vault.ErrUnavailable, context.Cause(ctx))
	}
	var response minio.ErrorResponse
	if errors.As(err, &response) && response.StatusCode != 0 {
		return s.answered(response)
	}
	return s.unanswered(err)
}

// rule is one meaning of an answer.
type rule struct {
	codes    []string
	statuses []int
	kind     error  // what callers decide by; may be nil
	remedy   string // {bucket}, {region} and {actual} region are filled in
}

// The first rule whose code fits decides; failing that the first whose status does.
var rules = []rule{
	{codes: []string{"NoSuchKey", "NoSuchObject"}, kind: vault.ErrNotFound},
	{codes: []string{"NoSuchBucket"}, remedy: "bucket {bucket} does not exist: create it, or correct the vault's address"},
	{codes: []string{"PreconditionFailed"}, statuses: []int{http.StatusPreconditionFailed}, kind: vault.ErrExists},
	{
		codes: []string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound"}, kind: vault.ErrDenied,
		remedy: "access key or secret key is wrong: check both for this endpoint",
	},
	{
		codes: []string{"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}, kind: vault.ErrDenied,
		remedy: "session token has expired or is wrong: give a new one",
	},
	{
		codes: []string{"RequestTimeTooSkewed", "RequestExpired"}, kind: vault.ErrDenied,
		remedy: "this machine's clock differs too much from the store's: set it right",
	},
	{
		codes:    []string{"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException", "InvalidRegion"},
		statuses: []int{http.StatusMovedPermanently, http.StatusTemporaryRedirect}, kind: vault.ErrDenied,
		remedy: "region {region} is wrong for bucket {bucket}{actual}: set region=",
	},
	{
		codes: []string{"NotImplemented", "MethodNotAllowed"}, statuses: []int{http.StatusNotImplemented, http.StatusMethodNotAllowed}, kind: vault.ErrDenied,
		remedy: "this server lacks what a vault needs, or forbids it",
	},
	{
		codes:    []string{"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "InsufficientCapacity"},
		statuses: []int{http.StatusInsufficientStorage}, kind: vault.ErrFull,
		remedy: "bucket {bucket} has no room left: give it more, or delete recovery points",
	},
	{
		codes:    []string{"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "XAmzContentSHA256Mismatch", "BadDigest", "IncompleteBody"},
		statuses: []int{http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests}, kind: vault.ErrUnavailable,
	},
	{
		codes: []string{"AccessDenied", "AllAccessDisabled", "AccountProblem"}, statuses: []int{http.StatusUnauthorized, http.StatusForbidden}, kind: vault.ErrDenied,
		remedy: "the key may not do this in bucket {bucket}: grant it get, put, delete and list there",
	},
}

// answered gives a server's answer its meaning.
func (s *Store) answered(r minio.ErrorResponse) error {
	said := fmt.Errorf("%s (HTTP %d): %s", r.Code, r.StatusCode, r.Message)
	i := slices.IndexFunc(rules, func(rule rule) bool { return slices.Contains(rule.codes, r.Code) })
	if i < 0 {
		i = slices.IndexFunc(rules, func(rule rule) bool { return slices.Contains(rule.statuses, r.StatusCode) })
	}
	switch {
	case i >= 0:
		return rules[i].explain(s.opt, r.Region, said)
	case r.StatusCode >= http.StatusInternalServerError:
		return fmt.Errorf("%w: %w", vault.ErrUnavailable, said)
	}
	return said
}

func (r rule) explain(opt Options, region string, said error) error {
	err := said
	if r.kind != nil {
		err = fmt.Errorf("%w: %w", r.kind, said)
	}
	if r.remedy == "" {
		return err
	}
	if region != "" && region != opt.region() {
		region = ", which is in " + region
	} else {
		region = ""
	}
	return fmt.Errorf("%s: %w", expand(r.remedy, opt.Bucket, opt.region(), region), err)
}

func expand(remedy, bucket, region, actual string) string {
	return strings.NewReplacer("{bucket}", bucket, "{region}", region, "{actual}", actual).Replace(remedy)
}

// ErrUntrusted says that who answers at the endpoint does not prove to be the
// store: its certificate is no good here, or it speaks no TLS. Asking again
// does not help, another CA or endpoint does.
var ErrUntrusted = errors.New("vault not trusted")

// unanswered gives its meaning to a request that got no answer.
func (s *Store) unanswered(err error) error {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("%w: the server's certificate is of an unknown authority: give its CA to the vault: %w", ErrUntrusted, err)
	case errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("%w: the server's certificate is not valid for this endpoint: %w", ErrUntrusted, err)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the server does not speak TLS: use an http:// endpoint and allow it, or another port: %w", ErrUntrusted, err)
	}
	return fmt.Errorf("%w: %w", vault.ErrUnavailable, err)
}
