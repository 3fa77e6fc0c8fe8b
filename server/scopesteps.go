package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/scope"
)

// Waiting implements [Reserver].
func (s *Scopes) Waiting() bool { return s.m.Waiting() }

// stepPatience is for how long a step that others will soon wait for is held up by limits.
// Requests wait for it, at the latest when a log or a drive is full, and it may be their
// tasks that have reached the limit: nothing would go on.
const stepPatience = time.Second

// Admit implements [Reserver]: a background step is a task of low priority until it has
// ended.
func (s *Scopes) Admit(ctx context.Context, pool string, p mpool.Priority) (done func(), err error) {
	service, err := s.m.Service(pool)
	if err != nil {
		return nil, err
	}
	wait := ctx
	if p == mpool.PriorityHigh {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, s.patience)
		defer cancel()
	}
	t, err := service.BeginTask(wait, scope.TasksLow)
	switch {
	case err == nil:
		return func() { s.ended(t.Done(), service.Close()) }, nil
	case p == mpool.PriorityHigh && ctx.Err() == nil:
		return func() { s.ended(service.Close()) }, nil
	}
	return nil, errors.Join(err, service.Close())
}

// ended hears what went wrong when a step ended, which nothing can but by a mistake.
func (s *Scopes) ended(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		s.opt.Logger.Error("a background step was ended twice", slog.Any("error", err))
	}
}
