package server

import (
	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

func ringAsk(*request, *ioctl.RingAsk) (ioctl.Message, error) {
	return nil, api.Errorf(api.ENOTSUP, "", "this daemon has no rings")
}

func ringClose(_ *request, m *ioctl.RingClose) (ioctl.Message, error) {
	return nil, api.Errorf(api.EINVAL, "", "no ring %d", m.Ring)
}
