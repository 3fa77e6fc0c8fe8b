package api

import (
	"encoding/hex"
	"time"
)

// How long a grant may last.
const (
	MinGrant = time.Millisecond
	MaxGrant = time.Hour
)

// TokenSize is the size of a Token, in bytes.
const TokenSize = 16

// Token is what a process shows to take an uncommitted object over: see
// [Object.Grant]. It is a secret: whoever has it, and may use the pool and the
// object's owner, can take the object. The zero Token is never given.
type Token [TokenSize]byte

// String returns the token's text form: 32 lower-case hex digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// MarshalText implements encoding.TextMarshaler.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes hex digits of both
// cases. EINVAL if that is no token's text form.
func (t *Token) UnmarshalText(text []byte) error {
	var got Token
	if len(text) != hex.EncodedLen(len(got)) {
		return Errorf(EINVAL, "token", "a text of %d bytes: want %d hex digits", len(text), hex.EncodedLen(len(got)))
	}
	if _, err := hex.Decode(got[:], text); err != nil {
		return Errorf(EINVAL, "token", "not %d hex digits", hex.EncodedLen(len(got)))
	}
	*t = got
	return nil
}

// ParseToken returns the token of a text form. EINVAL if it is none.
func ParseToken(text string) (Token, error) {
	var t Token
	err := t.UnmarshalText([]byte(text))
	return t, err
}
