// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// redis.conf's own quoting, as its documentation has it: words separated by
// blanks; within double quotes the escapes \n \r \t \b \a \xHH and a backslash
// before any other byte; within single quotes only \'. A closing quote ends
// its word.

var errQuotes = errors.New("unbalanced quotes")

// splitQuoted splits a line into at most max words.
func splitQuoted(line string, max int) (words []string, err error) {
	for i := 0; ; {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) {
			return words, nil
		}
		if len(words) == max {
			return nil, fmt.Errorf("more than %d words", max)
		}
		var word []byte
		for i < len(line) && !blank(line[i]) {
			if line[i] != '"' && line[i] != '\'' {
				word = append(word, line[i])
				i++
				continue
			}
			quoted, rest, err := unquote(line[i:])
			if err != nil {
				return nil, err
			}
			word = append(word, quoted...)
			i = len(line) - len(rest)
			if i < len(line) && !blank(line[i]) {
				return nil, errQuotes
			}
		}
		words = append(words, string(word))
	}
}

func blank(b byte) bool {
	return b == ' ' || b >= '\t' && b <= '\r' || b == 0
}

// unquote reads one quoted part, from its opening quote on.
func unquote(s string) (text []byte, rest string, err error) {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return text, s[i+1:], nil
		case quote == '\'' && strings.HasPrefix(s[i:], `\'`):
			text = append(text, '\'')
			i++
		case quote == '"' && s[i] == '\\' && i+1 < len(s):
			if i+3 < len(s) && s[i+1] == 'x' {
				if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
					text = append(text, byte(n))
					i += 3
					continue
				}
			}
			i++
			text = append(text, escaped(s[i]))
		default:
			text = append(text, s[i])
		}
	}
	return nil, "", errQuotes
}

func escaped(b byte) byte {
	if at := strings.IndexByte("nrtba", b); at >= 0 {
		return "\n\r\t\b\a"[at]
	}
	return b
}

// joinQuoted is the inverse of splitQuoted.
func joinQuoted(words []string) string {
	var b strings.Builder
	for i, word := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || r == '"' || r == '\'' || r == '\\'
		}) {
			b.WriteString(word)
			continue
		}
		b.WriteByte('"')
		for j := 0; j < len(word); j++ {
			switch ch := word[j]; {
			case ch == '"' || ch == '\\':
				b.WriteByte('\\')
				b.WriteByte(ch)
			case ch < ' ' || ch >= 0x7f:
				b.WriteString(`\x`)
				b.WriteByte("0123456789abcdef"[ch>>4])
				b.WriteByte("0123456789abcdef"[ch&15])
			default:
				b.WriteByte(ch)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}
