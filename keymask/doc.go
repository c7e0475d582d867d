// SPDX-License-Identifier: BSD-3-Clause

// Package keymask reads key masks, the small patterns that choose which keys'
// events are forwarded, matches them, and compiles them to the table that
// c/match.c runs inside the server's keyspace callback.
//
// Matching takes time proportional to the key's length, whatever the mask and
// the key: all places a match may have reached are followed at once, byte by
// byte, and nothing is tried twice. A mask of m bytes costs at most m+1 steps
// per byte of the key here, and (m+1)/64 words per byte of the key in C. Rob
// Pike's recursive matcher, whose grammar this is, takes time that grows as a
// power of the key's length when a mask has many stars.
//
// # Grammar
//
// The grammar is the one of "A Regular Expression Matcher" (The Practice of
// Programming; Beautiful Code, chapter 1), on bytes:
//
//	c    a byte that is none of the below: itself
//	.    any one byte, NUL and newline included
//	^    first in the mask: the start of the key
//	$    last in the mask: the end of the key
//	x*   zero or more of the byte x before it; .* is zero or more of any
//
// A mask matches anywhere in the key unless it is anchored. Nothing is
// captured, so shortest and longest match are the same thing. There is no
// escape. A set of masks matches when one of them does.
//
// # Odd cases
//
// Everything else is literal. Where two readings are possible, Pike's code
// decides; it reads the mask from the left, and asks whether a star follows
// before it asks what the byte is.
//
//	(empty)   every key
//	^         every key
//	$         every key
//	^$        the empty key
//	*         a literal star: nothing is before it
//	^*        a star at the start: an anchor is not a byte to repeat
//	**        zero or more stars: the first is literal, the second repeats it
//	a**       a*, then a literal star: a star that repeats is not repeated
//	***       **, then a literal star
//	^^        a ^ at the start
//	a^        a, then ^
//	a$b       a, then $, then b
//	$*        zero or more $
//	$$        a $ at the end
//	a*$       every key: zero a's at the end
//	^a*$      only a's, or the empty key
//
// The word ALL, as a mask of its own, stands for every key and makes the masks
// beside it void. It belongs to lists, not to the grammar: see [ParseList].
package keymask
