package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// A token's text form is read back as the same token, and nothing else is.
func TestTokenText(t *testing.T) {
	token := Token{0: 0x01, 7: 0xab, 15: 0xff}
	const text = "01000000000000ab00000000000000ff"
	if token.String() != text {
		t.Errorf("text %q", token)
	}
	for _, s := range []string{text, strings.ToUpper(text)} {
		if got, err := ParseToken(s); err != nil || got != token {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", text[1:], text + "0", "g" + text[1:], " " + text[1:]} {
		if got, err := ParseToken(s); !errors.Is(err, EINVAL) || got != (Token{}) {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
	b, err := json.Marshal(token)
	if err != nil || string(b) != `"`+text+`"` {
		t.Errorf("JSON %s, %v", b, err)
	}
	var got Token
	if err := json.Unmarshal(b, &got); err != nil || got != token {
		t.Errorf("JSON is read as %v, %v", got, err)
	}
}
