package exit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/s3"
	"davit.dev/davit/internal/volume"
)

func TestVerdict(t *testing.T) {
	dial := &url.Error{Op: "Get", URL: "https://x", Err: &net.OpError{Op: "dial", Err: context.DeadlineExceeded}}
	for _, tc := range []struct {
		err  error
		code int
	}{
		{nil, OK},
		{errors.New("whatever"), Failed},
		{Usage("", "x"), BadUsage},
		{Hint(Refuse("", "x"), "other"), Refused},
		{Quietly(Warnings), Warnings},
		{Quietly(OK), OK},
		{recovery.ErrRefused, Refused},
		{recovery.ErrPreflight, Refused},
		{recovery.ErrNoPoint, Refused},
		{recovery.ErrBusy, Refused},
		{&lease.SupersededError{}, Refused},
		{vault.ErrPinned, Refused},
		{protection.ErrLastGood, Refused},
		{vault.ErrUnavailable, Vault},
		{vault.ErrDenied, Vault},
		{fmt.Errorf("%w: %w", s3.ErrUntrusted, &url.Error{Op: "Head", URL: "https://x", Err: errors.New("certificate signed by unknown authority")}), Vault},
		{vault.ErrDamaged, Damaged},
		{volume.ErrDamaged, Damaged},
		{protection.ErrDamaged, Damaged},
		{ErrTimeout, Failed},
		{dial, Failed},
		{OfVault(dial), Vault},
		{OfVault(vault.ErrDamaged), Damaged},
		{&meta.NoKindMatchError{}, Refused},
		{apierrors.NewForbidden(schema.GroupResource{}, "x", nil), Failed},
	} {
		err := tc.err
		if err != nil {
			err = fmt.Errorf("do it: %w", err)
		}
		if got := Code(err); got != tc.code {
			t.Errorf("%v: code %d, want %d", tc.err, got, tc.code)
		}
	}
}

// TestNewFile: a name that cannot be one is the command line's fault, a file that is there
// is not written over, and a disk that is full is neither.
func TestNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f, err := NewFile(path, "write token")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{path: Refused, filepath.Join(path, "below"): BadUsage, filepath.Join(path+"s", "below"): BadUsage} {
		if _, err := NewFile(path, "write token"); Code(err) != want {
			t.Errorf("%s: %v, code %d, want %d", path, err, Code(err), want)
		}
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		if err := notMade(&fs.PathError{Op: "open", Path: path, Err: errno}, "write token"); Code(err) != Failed {
			t.Errorf("%v: code %d", err, Code(err))
		}
	}
}
