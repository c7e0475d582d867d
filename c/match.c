/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * match.c: runs compiled key masks. The layout is described in match.h.
 *
 * Every mask costs one pass of the loop in kea_match(): two loads of the key
 * are shared by all, and most keys fail there. Only a key that has the right
 * ends reaches an automaton, and masks with the same ends share one, which
 * sees only what is between the ends.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif

#include "match.h"

#include <string.h>

static uint64_t load8(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof word);
	return word;
}

/* The bytes of a key shorter than a word, first byte lowest. Pieces that
 * overlap are cheaper than a memcpy() of a length known only now. */
static uint64_t load_short(const uint8_t *key, size_t len)
{
	if (len >= 4) {
		uint32_t low, high;

		memcpy(&low, key, sizeof low);
		memcpy(&high, key + len - 4, sizeof high);
		return low | (uint64_t)high << (8 * (len - 4));
	}
	if (len == 0)
		return 0;
	return key[0] | (uint64_t)key[len / 2] << (8 * (len / 2)) |
	       (uint64_t)key[len - 1] << (8 * (len - 1));
}

static size_t fixed_words(uint64_t len)
{
	return len > 8 ? (size_t)(len + 7) / 8 : 0;
}

/* at points to at least len readable bytes. */
static bool fixed_at(const struct kea_fixed_word *word, size_t len, const uint8_t *at)
{
	size_t words = fixed_words(len);

	for (size_t i = 0; i < words; i++) {
		size_t off = i * 8 < len - 8 ? i * 8 : len - 8;

		if ((load8(at + off) & word[i].mask) != word[i].bits)
			return false;
	}
	return true;
}

static bool fixed_match(const struct kea_fixed *f, const uint8_t *key, size_t len)
{
	return fixed_at(f->word, (size_t)f->head_len, key) &&
	       fixed_at(f->word + fixed_words(f->head_len), (size_t)f->tail_len,
	                key + len - f->tail_len);
}

/*
 * Adds to the states in now, of which those in star may be left without a
 * byte, the states after them, through any run of stars: in now + star, taken
 * over a run of ones in star, the carry into a bit is set exactly when a bit
 * of now is set between the run's start and there. The run ends at a state
 * that is not starred, which takes the carry and passes none on, so masks do
 * not disturb each other. *carry goes from word to word.
 */
static uint64_t closure(uint64_t now, uint64_t star, uint64_t *carry)
{
	uint64_t starred = now & star;
	uint64_t sum = star + starred;
	uint64_t total = sum + *carry;

	*carry = (uint64_t)(sum < star) | (uint64_t)(total < sum);
	return now | (total ^ star ^ starred);
}

/* The automaton when it fits into one word, its state in a register. starred
 * is constant in every call, so that the plain one has no trace of stars. */
static inline bool block_match_word(const struct kea_block *b, const uint8_t *key, size_t len,
                                    bool starred)
{
	const uint64_t again = b->table[1], now = b->table[2], end = b->table[3];
	const uint64_t star = b->table[4];
	const uint64_t *row = b->table + 5;
	uint64_t state = b->table[0];

	for (size_t i = 0; i < len && state != 0; i++) {
		uint64_t hit = state & row[b->class_of[key[i]]];

		if ((state & now) != 0)
			return true;
		if (starred) {
			uint64_t carry = 0;

			state = (hit & ~star) << 1 | (hit & star);
			state = closure(state, star, &carry) | again;
		} else {
			state = hit << 1 | again;
		}
	}
	return (state & (now | end)) != 0;
}

static inline bool block_match_words(const struct kea_block *b, const uint8_t *key, size_t len,
                                     bool starred)
{
	const size_t words = (size_t)b->words;
	const uint64_t *start = b->table, *again = start + words, *now = again + words;
	const uint64_t *end = now + words, *star = end + words, *rows = star + words;
	uint64_t state[KEA_BLOCK_WORDS];
	uint64_t found = 0, alive = 0;

	for (size_t w = 0; w < words; w++) {
		state[w] = start[w];
		found |= start[w] & now[w];
		alive |= start[w];
	}
	for (size_t i = 0; i < len; i++) {
		const uint64_t *row = rows + words * b->class_of[key[i]];
		uint64_t moved = 0, carry = 0;

		if (found != 0)
			return true;
		if (alive == 0)
			return false;
		alive = 0;
		for (size_t w = 0; w < words; w++) {
			uint64_t hit = state[w] & row[w];
			uint64_t step = starred ? hit & ~star[w] : hit;
			uint64_t next = step << 1 | moved;

			moved = step >> 63;
			if (starred)
				next = closure(next | (hit & star[w]), star[w], &carry);
			next |= again[w];
			state[w] = next;
			found |= next & now[w];
			alive |= next;
		}
	}
	for (size_t w = 0; w < words; w++)
		found |= state[w] & end[w];
	return found != 0;
}

/* What the gate leaves open. Out of line: most keys do not get here. */
__attribute__((noinline)) static bool payload_match(const struct kea_program *prog,
                                                    const struct kea_gate *g, const uint8_t *key,
                                                    size_t len)
{
	const void *payload = (const uint8_t *)prog + g->at;
	const struct kea_block *block = payload;
	const struct kea_scan *scan = payload;

	if (g->skip_head + g->skip_tail != 0) {
		key += g->skip_head;
		len -= (size_t)g->skip_head + g->skip_tail;
	}
	switch (g->kind) {
	case KEA_GATE_FIXED:
		return fixed_match(payload, key, len);
	case KEA_GATE_SCAN:
		/* The two-way algorithm in glibc and musl, so linear. */
		return memmem(key, len, scan->bytes, (size_t)scan->len) != NULL;
	case KEA_GATE_PLAIN:
		return block->words == 1 ? block_match_word(block, key, len, false)
		                         : block_match_words(block, key, len, false);
	case KEA_GATE_STAR:
		return block->words == 1 ? block_match_word(block, key, len, true)
		                         : block_match_words(block, key, len, true);
	default:
		return false;
	}
}

bool kea_match(const struct kea_program *prog, const uint8_t *key, size_t len)
{
	const struct kea_gate *g = prog->gate, *stop = g + prog->gates;
	uint64_t head, tail;

	if (len >= 8) {
		head = load8(key);
		tail = load8(key + len - 8);
	} else {
		head = load_short(key, len);
		tail = len != 0 ? head << (8 * (8 - len)) : 0;
	}
	for (; g < stop; g++) {
		if ((((head & g->head_mask) ^ g->head) | ((tail & g->tail_mask) ^ g->tail)) != 0)
			continue;
		/* Below min the difference wraps, and is above any span. */
		if ((uint64_t)len - g->min > g->span)
			continue;
		if (g->kind == KEA_GATE_ACCEPT || payload_match(prog, g, key, len))
			return true;
	}
	return false;
}

/* room is what is left of the program after the payload's first byte. */

static const char *check_fixed(const struct kea_gate *g, const struct kea_fixed *f, uint64_t room)
{
	if (room < sizeof *f)
		return "fixed: cut off";
	if (g->min == 0)
		return "fixed: takes an empty key";
	if (g->skip_head != 0 || g->skip_tail != 0)
		return "fixed: skips bytes";
	if (f->head_len > g->min || f->tail_len > g->min)
		return "fixed: longer than the gate's shortest key";
	if ((room - sizeof *f) / sizeof f->word[0] <
	    fixed_words(f->head_len) + fixed_words(f->tail_len))
		return "fixed: words cut off";
	return NULL;
}

static const char *check_scan(const struct kea_gate *g, const struct kea_scan *s, uint64_t room)
{
	if (room < sizeof *s)
		return "scan: cut off";
	if (g->min == 0)
		return "scan: takes an empty key";
	if (s->len == 0)
		return "scan: empty";
	if (s->len > room - sizeof *s)
		return "scan: bytes cut off";
	return NULL;
}

static const char *check_block(const struct kea_block *b, uint64_t room)
{
	if (room < sizeof *b)
		return "block: cut off";
	if (b->words == 0 || b->words > KEA_BLOCK_WORDS)
		return "block: number of words";
	if (b->classes == 0 || b->classes > 256)
		return "block: number of classes";
	if ((room - sizeof *b) / sizeof b->table[0] < (5 + b->classes) * b->words)
		return "block: table cut off";
	for (size_t i = 0; i < 256; i++)
		if (b->class_of[i] >= b->classes)
			return "block: class of a byte";
	return NULL;
}

static const char *check_gate(const struct kea_program *p, const struct kea_gate *g)
{
	const void *payload;
	uint64_t room;

	if (g->min > KEA_GATE_MIN_MAX || g->span > KEA_GATE_SPAN_MAX)
		return "gate: length of key";
	if (g->skip_head > 8 || g->skip_tail > 8 || g->skip_head + g->skip_tail > (int)g->min)
		return "gate: bytes to skip";
	if (g->zero != 0)
		return "gate: reserved bytes";
	if (g->kind == KEA_GATE_ACCEPT)
		return NULL;
	if (g->at % 8 != 0 || g->at > p->size)
		return "gate: place of payload";
	payload = (const uint8_t *)p + g->at;
	room = p->size - g->at;
	switch (g->kind) {
	case KEA_GATE_FIXED:
		return check_fixed(g, payload, room);
	case KEA_GATE_SCAN:
		return check_scan(g, payload, room);
	case KEA_GATE_PLAIN:
	case KEA_GATE_STAR:
		return check_block(payload, room);
	default:
		return "gate: unknown kind";
	}
}

const char *kea_program_check(const void *bytes, size_t len)
{
	const struct kea_program *p = bytes;

	if (bytes == NULL || len < sizeof *p)
		return "program: shorter than its header";
	if ((uintptr_t)bytes % 8 != 0)
		return "program: not aligned to 8 bytes";
	if (p->magic != KEA_PROGRAM_MAGIC)
		return "program: magic or version";
	if (p->size != len || len % 8 != 0)
		return "program: size";
	for (size_t i = 0; i < sizeof p->reserved / sizeof p->reserved[0]; i++)
		if (p->reserved[i] != 0)
			return "program: reserved words";
	if (p->gates > (len - sizeof *p) / sizeof p->gate[0])
		return "program: gates cut off";
	for (size_t i = 0; i < p->gates; i++) {
		const char *wrong = check_gate(p, &p->gate[i]);

		if (wrong != NULL)
			return wrong;
	}
	return NULL;
}
