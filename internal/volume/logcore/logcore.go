// Package logcore lets kopia, which logs through zap, log to slog at level debug.
package logcore

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// New makes the core of a zap logger that writes to log.
func New(log *slog.Logger) zapcore.Core { return &sink{log: log} }

// sink is the core.
type sink struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.Core.
func (c *sink) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c *sink) With(f []zapcore.Field) zapcore.Core {
	return &sink{log: c.log, fields: append(append([]zapcore.Field(nil), c.fields...), f...)}
}

// Check implements zapcore.Core.
func (c *sink) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *sink) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(enc)
	}
	args := make([]any, 0, 2*len(enc.Fields)+2)
	args = append(args, "level", e.Level.String())
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	c.log.Debug(e.Message, args...)
	return nil
}

// Sync implements zapcore.Core.
func (c *sink) Sync() error { return nil }
