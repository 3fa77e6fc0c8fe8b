package server

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

func creditList(_ *request, _ *ioctl.CreditList) (ioctl.Message, error) {
	return nil, api.Errorf(api.ENOTSUP, "", "the daemon has no credits")
}

func creditRevoke(r *request, m *ioctl.Find) (ioctl.Message, error) {
	if _, err := usePool(r, m.Pool, true); err != nil {
		return nil, err
	}
	return nil, api.Errorf(api.ENOTSUP, "", "the daemon has no credits")
}
