package exit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/protection"
	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/vault"
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
