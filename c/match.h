/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * match.h: runs compiled key masks. Knows nothing of Redis or Go.
 *
 * Threads: a program is never written to after it was made, so any number of
 * threads may match with it; its owner decides who frees it, and when.
 *
 * Time: O(len) for a key of len bytes, whatever the masks and the key. There
 * is no backtracking, no recursion and no allocation; the stack holds at most
 * KEA_BLOCK_WORDS words of state.
 *
 * This file is the one description of a program's layout. keymask/compile.go
 * writes it. A program is one flat piece of memory, without pointers, so it
 * may be copied and moved; it begins at an address divisible by 8, and all
 * its numbers are little-endian (a big-endian host refuses it by its magic).
 *
 *	struct kea_program	header
 *	struct kea_gate[gates]	one for each mask, or for several alike
 *	payloads		what gates point to, each a multiple of 8 bytes
 */
#ifndef KEA_MATCH_H
#define KEA_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "KEAMSK01"; the last two digits are the version of the layout. */
#define KEA_PROGRAM_MAGIC UINT64_C(0x31304b534d41454b)

/* The longest bit vector, in words: one mask of the greatest length (65535
 * bytes) has one state more than it has items. */
#define KEA_BLOCK_WORDS 1024
/* Bounds of a gate's lengths, so that a difference that wraps is above them. */
#define KEA_GATE_MIN_MAX UINT64_C(0x100000)
#define KEA_GATE_SPAN_MAX UINT64_C(0x7fffffffffffffff)

enum kea_gate_kind {
	KEA_GATE_ACCEPT = 0, /* passing the gate is the match; no payload */
	KEA_GATE_FIXED = 1,  /* struct kea_fixed: ends longer than a word */
	KEA_GATE_SCAN = 2,   /* struct kea_scan: a literal anywhere */
	KEA_GATE_PLAIN = 3,  /* struct kea_block without stars */
	KEA_GATE_STAR = 4,   /* struct kea_block */
};

/*
 * What every key is asked first, cheap and without a branch for each question:
 *
 *	(first 8 bytes & head_mask) == head
 *	(last 8 bytes & tail_mask) == tail
 *	min <= len <= min + span
 *
 * The first byte of the key is the lowest of its word, the last byte the
 * highest; bytes that a shorter key lacks are zero. A key that passes matches
 * if kind says so, or if the payload matches what is left of the key without
 * the skipped bytes, which the gate has seen. skip_head + skip_tail <= min.
 */
struct kea_gate {
	uint64_t head, head_mask;
	uint64_t tail, tail_mask;
	uint64_t min, span;
	uint16_t kind;                 /* enum kea_gate_kind */
	uint16_t skip_head, skip_tail; /* 8 at most */
	uint16_t zero;
	uint64_t at; /* payload, in bytes from the start of the program */
};

struct kea_program {
	uint64_t magic;       /* KEA_PROGRAM_MAGIC */
	uint64_t size;        /* bytes, header included */
	uint64_t gates;       /* none: nothing matches */
	uint64_t reserved[5]; /* zero */
	struct kea_gate gate[];
};

/* One word of a fixed string; bytes that may be anything are zero in both. */
struct kea_fixed_word {
	uint64_t bits, mask;
};

/*
 * A fixed string at the start of the key, another at its end. Each takes
 * ceil(len / 8) words, the last of which ends where the string ends and so
 * overlaps the one before it; none if len <= 8, for the gate has seen it all.
 * Nothing is skipped.
 */
struct kea_fixed {
	uint64_t head_len, tail_len;
	struct kea_fixed_word word[]; /* those of the head, then of the tail */
};

struct kea_scan {
	uint64_t len;
	uint8_t bytes[]; /* padded with zero to a multiple of 8 */
};

/*
 * An automaton for one or more masks, a bit for each state, the first state in
 * the lowest bit of the first word. A mask of n items has n + 1 states in a
 * row; state i means that the items before i are matched. Masks follow each
 * other without gaps, across words. The table holds, each of that many words:
 *
 *	start	states before the first byte, after closure
 *	again	states that every further byte adds, after closure
 *	now	final states that are a match wherever they are reached
 *	end	final states that are a match at the end of the key only
 *	star	states whose item is starred (a final state never is)
 *	row[c]	states whose item matches a byte of class c, for each class
 *
 * Closure adds to the state of a starred item the state after it.
 */
struct kea_block {
	uint64_t words;
	uint64_t classes;
	uint8_t class_of[256]; /* bytes that no item tells apart share a class */
	uint64_t table[];
};

/*
 * Reports whether any mask of the program matches the key. prog is borrowed
 * and has passed kea_program_check(); key is borrowed, may hold any bytes, and
 * may be NULL when len is 0.
 */
bool kea_match(const struct kea_program *prog, const uint8_t *key, size_t len);

/*
 * Returns NULL if kea_match() is safe with the len bytes at bytes (borrowed),
 * else what is wrong with them, a constant string. It looks at every number
 * that is used as an index or a size, not at whether the masks make sense.
 */
const char *kea_program_check(const void *bytes, size_t len);

#endif
